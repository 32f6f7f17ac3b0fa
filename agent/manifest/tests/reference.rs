//! Every case of `tests/yaml`: `NAME.yaml` must mean `NAME.json`, which sigs.k8s.io/yaml 1.6.0 wrote. The end-to-end
//! tests put the same files before `kubectl create --dry-run=client -o json`.

use std::fs;
use std::path::Path;

use serde_json::Value;

#[test]
fn yaml_means_what_the_reference_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/yaml");
    let mut cases = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&folder).expect("the cases") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        cases += 1;
        let text = fs::read_to_string(&path).expect("a case");
        let expected: Value =
            serde_json::from_str(&fs::read_to_string(path.with_extension("json")).expect("its answer")).expect("JSON");
        match berth_manifest::to_json(&text) {
            Ok(read) if read == expected => {}
            Ok(read) => wrong.push(format!("{}:\n  read     {read}\n  expected {expected}", path.display())),
            Err(error) => wrong.push(format!("{}: {error}", path.display())),
        }
    }
    assert!(cases >= 60, "only {cases} cases");
    assert!(wrong.is_empty(), "{} of {cases} differ:\n{}", wrong.len(), wrong.join("\n"));
}
