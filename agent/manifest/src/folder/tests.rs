use super::*;

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: hello}}]}}\n"
    )
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    snapshot.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_wrong_is_one_line_and_the_others_run() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.yaml"), manifest("a")).expect("write");
    fs::write(at("b.yaml"), manifest("a")).expect("write");
    fs::write(at("c.yaml"), "kind: [").expect("write");
    fs::write(at("d.json"), serde_json::to_string(&crate::to_json(&manifest("d")).expect("json")).expect("text"))
        .expect("write");
    for ignored in [".hidden.yaml", ".a.yaml.swp", "a.yaml~", "#a.yaml#"] {
        fs::write(at(ignored), "not yaml: [").expect("write");
    }
    fs::write(at("latin.yaml"), b"a: \xe9").expect("write");
    fs::create_dir(at("sub")).expect("folder");
    let snapshot = Folder::new(folder.path(), "n").read();
    assert_eq!(names(&snapshot), ["a-n", "d-n"]);
    let lines = problems(&snapshot);
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let base = folder.path().display();
    assert_eq!(lines[0], format!("{base}/sub: is a folder; folders inside are not read"));
    assert_eq!(
        lines[1],
        format!("{base}/b.yaml: line 3: field metadata.name: pod default/a-n is already defined in {base}/a.yaml")
    );
    assert!(lines[2].starts_with(&format!("{base}/c.yaml: line ")), "{}", lines[2]);
    assert_eq!(lines[3], format!("{base}/latin.yaml: is not UTF-8"));
}

#[test]
fn a_broken_edit_stops_nothing_and_a_removal_does() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("a.yaml");
    let mut source = Folder::new(folder.path(), "n");
    fs::write(&file, manifest("a")).expect("write");
    let first = source.read();
    fs::write(&file, "apiVersion: v1\nki").expect("write");
    let broken = source.read();
    assert_eq!(broken.pods, first.pods);
    assert!(problems(&broken)[0].ends_with("(its pods stay as they were)"));
    fs::remove_file(&file).expect("remove");
    assert_eq!(source.read(), Snapshot::default());
}

#[test]
fn one_file_is_a_source_too_and_one_that_is_missing_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("only.yaml");
    let mut source = Folder::new(&file, "n");
    assert!(problems(&source.read())[0].ends_with("only.yaml: is not there; it is read once it is"));
    fs::write(&file, manifest("a")).expect("write");
    assert_eq!(names(&source.read()), ["a-n"]);
}

#[tokio::test]
async fn changes_arrive() {
    let folder = tempfile::tempdir().expect("folder");
    let (sender, mut receiver) = mpsc::channel(4);
    let task = tokio::spawn(Folder::new(folder.path(), "n").watch(sender));
    let mut next = async |expected: &[&str]| {
        let arrived = tokio::time::timeout(CHECK / 2, async {
            loop {
                let snapshot: Snapshot = receiver.recv().await.expect("a snapshot");
                if names(&snapshot) == expected {
                    return;
                }
            }
        });
        arrived.await.unwrap_or_else(|_| panic!("{expected:?} must arrive by events, not by the slow check"));
    };
    next(&[]).await;
    fs::write(folder.path().join("a.yaml"), manifest("a")).expect("write");
    next(&["a-n"]).await;
    fs::write(folder.path().join(".b"), manifest("b")).expect("write");
    fs::rename(folder.path().join(".b"), folder.path().join("b.yaml")).expect("rename");
    next(&["a-n", "b-n"]).await;
    fs::remove_file(folder.path().join("a.yaml")).expect("remove");
    next(&["b-n"]).await;
    drop(receiver);
    task.await.expect("joined").expect("ended because nobody listens");
}
