//! Mutants of the kernel's files. What a cgroup's files say is the kernel's word, but a container may have mounted
//! something else there for whoever looks through its eyes, and kernels differ: no text may end the runtime.

use std::path::Path;
use std::time::Duration;

use berth_fuzz::Documents;

use super::{cpu, io, keyed, limit, memory, number, pressure, tasks};
use crate::host;

#[test]
fn files() {
    let documents = Documents::text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    bolero::check!().with_test_time(Duration::from_secs(2)).with_max_len(64).for_each(|script: &[u8]| {
        let text = documents.mutant(script);
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let _ = (cpu::v2(&text), cpu::v1(first, Some(rest), Some(first), Some(&text)));
        let file = |_: &str| Some(text.clone());
        let _ = (memory::v1(first, &file), memory::v2(first, &file));
        if let Some(stall) = pressure::parse(&text) {
            assert!(text.contains("some ") && (stall.full.is_none() || text.contains("full ")), "{stall:?}");
        }
        if let Some(tasks) = tasks::parse(first, Some(rest)) {
            assert_eq!(tasks.limit, number(rest));
        }
        assert!(io::v1(&text, rest).len() <= 2 * text.lines().count());
        assert!(io::v2(&text).len() <= text.lines().count());
        assert!(limit(&text).is_none_or(|bytes| bytes < i64::MAX as u64 && number(&text) == Some(bytes)));
        let _ = keyed(&text, "oom_kill");
        if let Some(host) = host::parse(&text) {
            assert!(
                host.hierarchies().iter().all(|one| !one.folder.is_empty() && !one.folder.contains('/')),
                "{host:?}"
            );
            if let Ok(cgroup) = host.open(first) {
                assert!(
                    cgroup.path().starts_with('/') && !cgroup.path().split('/').any(|part| part == ".."),
                    "{cgroup:?}"
                );
            }
        }
    });
}
