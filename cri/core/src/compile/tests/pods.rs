//! Rules of what containers of a pod share: processes and users.

use super::*;

const PID: &str = "linux.security_context.namespace_options.pid";
const USERNS: &str = "linux.security_context.namespace_options.userns_options";

fn map(container_id: u32, host_id: u32, length: u32) -> cri::IdMapping {
    cri::IdMapping { container_id, host_id, length }
}

fn users(mode: cri::NamespaceMode, uids: &[cri::IdMapping], gids: &[cri::IdMapping]) -> cri::UserNamespace {
    cri::UserNamespace { mode: mode.into(), uids: uids.to_vec(), gids: gids.to_vec() }
}

/// A pod with users 0 to 99999 at 1000 and up, as the validation suite has it.
fn with_users(change: impl FnOnce(&mut Case)) -> Case {
    case(|case| {
        let one = [map(0, 1000, 100_000)];
        case.sandbox_namespaces().userns_options = Some(users(cri::NamespaceMode::Pod, &one, &one));
        change(case);
    })
}

fn spec_namespace(case: &Case, kind: oci::LinuxNamespaceType) -> Option<Option<String>> {
    let (spec, _) = case.compile().expect("accepted");
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    let found = namespaces.iter().find(|namespace| namespace.typ() == kind)?;
    Some(found.path().as_ref().map(|path| path.display().to_string()))
}

#[test]
fn processes_are_shared_as_both_say() {
    use cri::NamespaceMode as Mode;
    let with = |sandbox: Option<Mode>, container: Option<Mode>, target: &str| {
        case(|case| {
            let options =
                |mode: Mode| cri::NamespaceOption { pid: mode.into(), target_id: target.into(), ..Default::default() };
            case.sandbox_security().namespace_options = sandbox.map(options);
            case.security().namespace_options = container.map(options);
        })
    };
    let (own, shim) = ((true, plan::PidFrom::Shim), (false, plan::PidFrom::Shim));
    let (pod, other) = ((false, plan::PidFrom::Pod), (false, plan::PidFrom::Container("target".into())));
    for (sandbox, container, expected, path) in [
        (None, None, &own, Some(None)),
        (Some(Mode::Container), None, &own, Some(None)),
        (Some(Mode::Pod), None, &pod, Some(Some("/proc/78/ns/pid"))),
        (Some(Mode::Pod), Some(Mode::Pod), &pod, Some(Some("/proc/78/ns/pid"))),
        (Some(Mode::Pod), Some(Mode::Container), &own, Some(None)),
        (Some(Mode::Node), Some(Mode::Node), &shim, None),
        (Some(Mode::Container), Some(Mode::Target), &other, Some(Some("/proc/99/ns/pid"))),
        (Some(Mode::Pod), Some(Mode::Target), &other, Some(Some("/proc/99/ns/pid"))),
    ] {
        let case = with(sandbox, container, "target");
        let plan = case.plan();
        assert_eq!((plan.namespaces.pid, plan.pid_from), *expected, "{sandbox:?} {container:?}");
        let path = path.map(|path| path.map(str::to_owned));
        assert_eq!(spec_namespace(&case, oci::LinuxNamespaceType::Pid), path, "{sandbox:?} {container:?}");
    }
    assert_eq!(with(Some(Mode::Container), Some(Mode::Pod), "").refused(), PID);
    assert_eq!(with(Some(Mode::Target), None, "target").refused(), PID);
    for nobody in ["", "stopped"] {
        let field = with(Some(Mode::Container), Some(Mode::Target), nobody).refused();
        assert_eq!(field, "linux.security_context.namespace_options.target_id", "{nobody}");
    }
}

#[test]
fn a_pod_has_one_range_of_users() {
    use cri::NamespaceMode as Mode;
    let with = |users: cri::UserNamespace| {
        let case = case(|case| case.sandbox_namespaces().userns_options = Some(users));
        sandbox(&case.sandbox, CgroupDriver::Cgroupfs).map(|plan| plan.user).map_err(|error| error.field)
    };
    let one = [map(0, 1000, 100_000)];
    assert_eq!(with(users(Mode::Pod, &one, &one)), Ok(Some(UserIds { host: 1000, length: 100_000 })));
    assert_eq!(with(users(Mode::Node, &[], &[])), Ok(None));
    let two = [map(0, 1000, 10), map(10, 5000, 10)];
    for (mode, uids, gids) in [
        (Mode::Pod, &[][..], &[][..]),
        (Mode::Pod, &one, &[]),
        (Mode::Pod, &two, &two),
        (Mode::Pod, &one, &[map(0, 2000, 100_000)]),
        (Mode::Pod, &one, &[map(0, 1000, 99_999)]),
        (Mode::Pod, &[map(1, 1000, 10)], &[map(1, 1000, 10)]),
        (Mode::Pod, &[map(0, 1000, 0)], &[map(0, 1000, 0)]),
        (Mode::Pod, &[map(0, u32::MAX - 9, 10)], &[map(0, u32::MAX - 9, 10)]),
        (Mode::Node, &one, &one),
        (Mode::Container, &one, &one),
        (Mode::Target, &one, &one),
    ] {
        assert_eq!(with(users(mode, uids, gids)), Err(USERNS.to_owned()), "{mode:?} {uids:?} {gids:?}");
    }
}

#[test]
fn a_container_has_the_users_of_its_pod() {
    let case = with_users(|case| _ = case.mount("/h", "/plain"));
    let plan = case.plan();
    let ids = Some(plan::IdRange { host: 1000, length: 100_000 });
    assert_eq!(plan.user, ids);
    assert_eq!(exec(&plan, "e", &["true".into()], false).expect("accepted").user, ids);
    assert_eq!(spec_namespace(&case, oci::LinuxNamespaceType::User), Some(None));
    let idmap = |plan: &plan::Container, path: &str| {
        plan.mounts.iter().find(|mount| mount.destination == path).expect("mounted").idmap
    };
    for path in ["/dev/shm", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        assert_eq!(idmap(&plan, path), ids, "{path}");
    }
    assert_eq!(idmap(&plan, "/plain"), None, "a mount without ids of its own keeps the node's");
    let one = [map(0, 1000, 100_000)];
    let same = with_users(|case| {
        case.security().namespace_options.get_or_insert_default().userns_options =
            Some(users(cri::NamespaceMode::Pod, &one, &one));
    });
    assert_eq!(same.plan().user, ids);
    for other in [
        users(cri::NamespaceMode::Node, &[], &[]),
        users(cri::NamespaceMode::Pod, &[map(0, 2000, 100_000)], &[map(0, 2000, 100_000)]),
    ] {
        let case = with_users(|case| {
            case.security().namespace_options.get_or_insert_default().userns_options = Some(other);
        });
        assert_eq!(case.refused(), USERNS);
    }
    let none = super::case(|case| {
        case.security().namespace_options.get_or_insert_default().userns_options =
            Some(users(cri::NamespaceMode::Pod, &one, &one));
    });
    assert_eq!(none.refused(), USERNS);
}

#[test]
fn users_of_a_pod_have_no_rights_in_the_nodes_namespaces() {
    let field = |change: fn(&mut Case)| with_users(change).refused();
    assert_eq!(field(|case| case.sandbox_namespaces().pid = cri::NamespaceMode::Node.into()), PID);
    assert_eq!(
        field(|case| case.sandbox_namespaces().ipc = cri::NamespaceMode::Node.into()),
        "linux.security_context.namespace_options.ipc"
    );
    assert_eq!(
        field(|case| {
            case.security().namespace_options.get_or_insert_default().pid = cri::NamespaceMode::Node.into();
        }),
        PID
    );
    let spread = with_users(|case| {
        case.mount("/h", "/m").propagation = cri::MountPropagation::PropagationBidirectional.into();
        case.paths.host.mounts.get_mut("/h").expect("set").propagation = Propagation::Shared;
    });
    assert_eq!(spread.refused(), "mounts[0].propagation");
}

#[test]
fn only_a_pod_with_users_of_its_own_unmasks_proc() {
    let plan = with_users(|_| {}).plan();
    assert!(plan.masked_paths.is_empty() && plan.readonly_paths.is_empty());
    let plan = with_users(|case| case.security().masked_paths = vec!["/proc/kcore".into()]).plan();
    assert_eq!(plan.masked_paths, ["/proc/kcore"]);
    assert!(!case(|_| {}).plan().masked_paths.is_empty());
}
