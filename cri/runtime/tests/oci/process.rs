//! Who the first process is, and what it may do.

use serde_json::{Value, json};

use crate::check::{all, alone};
use crate::stage::{Stage, set};

#[test]
fn ids_groups_and_umask_are_set() {
    all(|stage| {
        let user = json!({ "uid": 1000, "gid": 1001, "additionalGids": [7, 1002], "umask": 0o027 });
        let script = "id -u; id -g; id -G; umask; cd /tmp 2> /dev/null; pwd";
        let said = stage.says_with(script, |one| {
            set(one, "/process/user", user);
            set(one, "/process/cwd", json!("/work"));
        });
        assert_eq!(said, "1000\n1001\n1001 7 1002\n0027\n/tmp");
    });
}

#[test]
fn capabilities_are_exactly_those() {
    all(|stage| {
        let sets = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_CHOWN"],
            "ambient": [],
        });
        let said = stage.says_with("grep Cap /proc/self/status", |one| {
            set(one, "/process/capabilities", sets);
            set(one, "/process/user", json!({ "uid": 1000, "gid": 1000 }));
        });
        assert!(said.contains("CapBnd:\t0000000000002021"), "{said}");
        // A user's program keeps none without ambient ones.
        assert!(said.contains("CapEff:\t0000000000000000") && said.contains("CapInh:\t0000000000000001"), "{said}");
        let sets = json!({
            "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        });
        let said = stage.says_with("grep -e CapEff -e CapAmb /proc/self/status", |one| {
            set(one, "/process/capabilities", sets);
            set(one, "/process/user", json!({ "uid": 1000, "gid": 1000 }));
        });
        assert_eq!(said, "CapEff:\t0000000000000020\nCapAmb:\t0000000000000020");
    });
}

#[test]
fn limits_of_a_process_are_set() {
    all(|stage| {
        let limits = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        ]);
        let script =
            "ulimit -Sn; ulimit -Hn; ulimit -c; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj";
        let said = stage.says_with(script, |one| {
            set(one, "/process/rlimits", limits);
            set(one, "/process/oomScoreAdj", json!(500));
        });
        assert_eq!(said, "100\n200\n0\nNoNewPrivs:\t1\n500");
    });
}

#[test]
fn a_score_that_can_not_be_lowered_is_no_reason_to_stop() {
    alone("without CAP_SYS_RESOURCE the references stop", |stage: &Stage| {
        stage.says_with("true", |one| set(one, "/process/oomScoreAdj", json!(-999)));
    });
}

#[test]
fn a_missing_working_folder_is_made() {
    all(|stage| {
        assert_eq!(stage.says_with("pwd", |one| set(one, "/process/cwd", json!("/work/new/deep"))), "/work/new/deep");
    });
}

#[test]
fn only_the_standard_descriptors_are_open() {
    all(|stage| {
        // `ls` has the folder itself open.
        let said = stage.says_with("ls /proc/self/fd | grep -c .; ls /proc/1/fd; true", |_| {});
        assert_eq!(said, "4\n0\n1\n2");
    });
}

#[test]
fn a_program_may_be_scheduled_otherwise() {
    alone("runc has them since 1.2, crun since 1.9", |stage: &Stage| {
        let change = |one: &mut Value| {
            set(one, "/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 }));
            set(one, "/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 }));
        };
        let stat = stage.says_with("cat /proc/self/stat", change);
        let fields: Vec<&str> = stat.split(' ').collect();
        assert_eq!((fields[18], fields[40]), ("7", "3"), "{stat}");
        stage.write_with(&["/bin/true"], |one| {
            set(one, "/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 40 }))
        });
        let said = stage.run().fails();
        assert!(said.error().contains("process.scheduler.nice"), "{}", said.error());
    });
    all(|stage| {
        let said =
            stage.says_with("busybox uname -m", |one| set(one, "/linux/personality", json!({ "domain": "LINUX32" })));
        if cfg!(target_arch = "x86_64") {
            assert_eq!(said, "i686");
        }
    });
}
