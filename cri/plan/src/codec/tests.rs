use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::container::*;
use crate::message::*;

fn text() -> impl Strategy<Value = String> {
    "[ -~é]{0,12}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..3)
}

fn namespaces() -> impl Strategy<Value = NewNamespaces> {
    any::<[bool; 6]>().prop_map(|[mount, pid, cgroup, ipc, uts, net]| NewNamespaces {
        mount,
        pid,
        cgroup,
        ipc,
        uts,
        net,
    })
}

fn range() -> impl Strategy<Value = Option<IdRange>> {
    option::of(any::<(u32, u32)>().prop_map(|(host, length)| IdRange { host, length }))
}

fn pid_from() -> impl Strategy<Value = PidFrom> {
    prop_oneof![Just(PidFrom::Shim), Just(PidFrom::Pod), text().prop_map(PidFrom::Container)]
}

fn delegate() -> impl Strategy<Value = Option<Delegate>> {
    option::of(
        (text(), vec(texts(), 0..3), text(), text()).prop_map(|(folder, commands, pid_file, console)| Delegate {
            folder,
            commands,
            pid_file,
            console,
        }),
    )
}

fn mount() -> impl Strategy<Value = Mount> {
    let source = prop_oneof![
        (text(), pairs()).prop_map(|(kind, options)| MountSource::Filesystem { kind, options }),
        (text(), any::<bool>()).prop_map(|(path, recursive)| MountSource::Bind { path, recursive }),
        (vec((text(), text(), pairs()), 0..3), pairs())
            .prop_map(|(hierarchies, links)| MountSource::Cgroup { hierarchies, links }),
        (texts(), text()).prop_map(|(layers, sub_path)| MountSource::Image { layers, sub_path }),
    ];
    (source, text(), any::<u64>(), any::<u64>(), any::<bool>(), any::<u64>(), range()).prop_map(
        |(source, destination, attr_set, attr_clear, recursive_attr, propagation, idmap)| Mount {
            source,
            destination,
            attr_set,
            attr_clear,
            recursive_attr,
            propagation,
            idmap,
        },
    )
}

fn process() -> impl Strategy<Value = Process> {
    let who = (any::<u32>(), any::<u32>(), vec(any::<u32>(), 0..3), option::of(any::<u32>()));
    let may = (any::<[u64; 5]>(), any::<bool>(), vec(any::<u8>(), 0..32), vec(any::<(u32, u64, u64)>(), 0..3));
    (texts(), texts(), text(), who, may, option::of(any::<i32>()), any::<bool>(), text()).prop_map(
        |(
            args,
            env,
            cwd,
            (uid, gid, groups, umask),
            (caps, no_new_privileges, seccomp, rlimits),
            oom_score_adj,
            terminal,
            apparmor,
        )| {
            let [bounding, effective, permitted, inheritable, ambient] = caps;
            let rlimits = rlimits.into_iter().map(|(resource, soft, hard)| Rlimit { resource, soft, hard }).collect();
            let capabilities = Capabilities { bounding, effective, permitted, inheritable, ambient };
            Process {
                args,
                env,
                cwd,
                uid,
                gid,
                groups,
                umask,
                capabilities,
                no_new_privileges,
                seccomp,
                rlimits,
                oom_score_adj,
                terminal,
                apparmor,
            }
        },
    )
}

fn container() -> impl Strategy<Value = Container> {
    let rootfs = prop_oneof![
        (texts(), text(), text()).prop_map(|(lower, upper, work)| Rootfs::Overlay { lower, upper, work }),
        text().prop_map(|path| Rootfs::Folder { path }),
    ];
    let device =
        (text(), any::<bool>(), any::<[u32; 5]>()).prop_map(|(path, block, [major, minor, mode, uid, gid])| Device {
            path,
            kind: if block { DeviceKind::Block } else { DeviceKind::Character },
            major,
            minor,
            mode,
            uid,
            gid,
        });
    let stdin = prop_oneof![Just(Stdin::None), Just(Stdin::Open), Just(Stdin::Once)];
    let root = (rootfs, any::<bool>(), any::<u64>());
    let files = (vec(mount(), 0..3), vec(device, 0..3), pairs(), pairs(), texts(), texts());
    let namespaces = (namespaces(), pid_from(), range());
    let namespaces = (namespaces, delegate());
    (text(), namespaces, option::of(text()), root, files, process(), text(), stdin).prop_map(
        |(
            id,
            ((namespaces, pid_from, user), delegate),
            hostname,
            (rootfs, readonly_rootfs, root_propagation),
            files,
            process,
            log_path,
            stdin,
        )| {
            let (mounts, devices, links, sysctls, masked_paths, readonly_paths) = files;
            Container {
                id,
                namespaces,
                pid_from,
                user,
                hostname,
                rootfs,
                readonly_rootfs,
                root_propagation,
                mounts,
                devices,
                links,
                sysctls,
                masked_paths,
                readonly_paths,
                process,
                log_path,
                stdin,
                delegate,
            }
        },
    )
}

fn exit() -> impl Strategy<Value = Exit> {
    (any::<[i32; 3]>(), any::<[i64; 2]>()).prop_map(|([pid, code, signal], [started_at, finished_at])| Exit {
        pid,
        code,
        signal,
        started_at,
        finished_at,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let target = prop_oneof![text().prop_map(Target::Container), text().prop_map(Target::Exec)];
    prop_oneof![
        any::<u16>().prop_map(|protocol| Request::Hello { protocol }),
        (any::<[bool; 5]>(), range(), text(), pairs()).prop_map(
            |([join_network, new_network, new_ipc, new_uts, shared_pid], user, hostname, sysctls)| Request::Sandbox {
                join_network,
                new_network,
                new_ipc,
                new_uts,
                shared_pid,
                user,
                hostname,
                sysctls
            }
        ),
        (text(), any::<u8>(), any::<bool>()).prop_map(|(container, cgroup_tasks, cgroup_v2)| Request::Start {
            container,
            cgroup_tasks,
            cgroup_v2
        }),
        (text(), any::<u8>(), any::<bool>()).prop_map(|(exec, cgroup_tasks, cgroup_v2)| Request::Exec {
            exec,
            cgroup_tasks,
            cgroup_v2
        }),
        (target, any::<i32>()).prop_map(|(target, signal)| Request::Signal { target, signal }),
        text().prop_map(|container| Request::ReopenLog { container }),
        text().prop_map(|container| Request::Forget { container }),
        Just(Request::Shutdown),
        (text(), any::<[bool; 3]>()).prop_map(|(container, [stdin, stdout, stderr])| Request::Attach {
            container,
            stdin,
            stdout,
            stderr
        }),
    ]
}

fn from_shim() -> impl Strategy<Value = FromShim> {
    let held = prop_oneof![
        (text(), any::<i32>(), any::<i64>()).prop_map(|(container, pid, started_at)| Held::Running {
            container,
            pid,
            started_at
        }),
        (text(), exit()).prop_map(|(container, exit)| Held::Exited { container, exit }),
    ];
    let stage = proptest::sample::select(vec![Stage::Protocol, Stage::Mount, Stage::Execve, Stage::Fork]);
    let reply = prop_oneof![
        (any::<u16>(), any::<i32>(), any::<bool>(), vec(held, 0..3), texts()).prop_map(
            |(protocol, pid, sandbox_ready, containers, execs)| Reply::Hello {
                protocol,
                pid,
                sandbox_ready,
                containers,
                execs
            }
        ),
        Just(Reply::Done),
        (any::<i32>(), any::<i64>()).prop_map(|(pid, started_at)| Reply::Started { pid, started_at }),
        (stage, any::<i32>(), text()).prop_map(|(stage, errno, message)| Reply::Failed(Failure {
            stage,
            errno,
            message
        })),
        any::<[bool; 2]>().prop_map(|[terminal, stdin]| Reply::Attached { terminal, stdin }),
    ];
    prop_oneof![
        (any::<u64>(), reply).prop_map(|(number, reply)| FromShim::Reply { number, reply }),
        (text(), exit())
            .prop_map(|(container, exit)| FromShim::Event { event: Event::ContainerExited { container, exit } }),
        (text(), exit()).prop_map(|(exec, exit)| FromShim::Event { event: Event::ExecExited { exec, exit } }),
    ]
}

/// What comes back is what went in; a frame cut short, prolonged or of another kind is refused.
fn holds<T: Frame + PartialEq + fmt::Debug>(value: &T) {
    let bytes = encode(value).expect("it fits");
    assert_eq!(&decode::<T>(&bytes).expect("what was encoded"), value);
    for cut in 0..bytes.len() {
        assert!(decode::<T>(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(decode::<T>(&longer), Err(DecodeError::Trailing));
    let mut other = bytes;
    other[2] = 99;
    assert_eq!(decode::<T>(&other), Err(DecodeError::Kind));
    other[0] = 99;
    assert_eq!(decode::<T>(&other), Err(DecodeError::Version { theirs: 99 }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_container_comes_back_and_so_does_its_head(plan in container()) {
        holds(&plan);
        let head = container_head(&encode(&plan).expect("it fits")).expect("its head");
        let Container { id, namespaces, pid_from, user, log_path, stdin, process: Process { terminal, .. }, .. } = plan;
        prop_assert_eq!(head, ContainerHead { id, namespaces, pid_from, user, log_path, stdin, terminal });
    }

    #[test]
    fn an_exec_comes_back_and_so_does_its_head(id in text(), container in text(), delegate in delegate(), process in process(), user in range()) {
        let plan = Exec { id, container, delegate, process, user };
        holds(&plan);
        let head = exec_head(&encode(&plan).expect("it fits")).expect("its head");
        let Exec { id, container, delegate, process: Process { terminal, .. }, .. } = plan;
        prop_assert_eq!(head, ExecHead { id, container, delegate, terminal });
    }

    #[test]
    fn messages_come_back(number in any::<u64>(), request in request(), answer in from_shim(), exit in exit()) {
        holds(&ToShim { number, request });
        holds(&answer);
        holds(&exit);
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in vec(any::<u8>(), 0..600), good in container(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        for kind in 0..8 {
            if bytes.len() > 3 {
                bytes[..3].copy_from_slice(&[1, 0, kind]);
            }
            let _ = decode::<Container>(&bytes);
            let _ = decode::<Exec>(&bytes);
            let _ = decode::<ToShim>(&bytes);
            let _ = decode::<FromShim>(&bytes);
            let _ = decode::<Exit>(&bytes);
            let _ = container_head(&bytes);
            let _ = exec_head(&bytes);
        }
        // A valid frame with one byte changed gets further than noise does.
        let mut frame = encode(&good).expect("it fits");
        let at = at.index(frame.len());
        frame[at] = to;
        let _ = decode::<Container>(&frame);
    }
}

#[test]
fn promises_of_great_lengths_are_refused_without_allocating() {
    // A ToShim with a Sandbox whose hostname is said to have 4 GiB.
    let mut bytes = vec![1, 0, 3];
    bytes.extend(7_u64.to_le_bytes());
    bytes.extend([1, 1, 1, 1, 1, 1, 0]);
    bytes.extend(u32::MAX.to_le_bytes());
    assert_eq!(decode::<ToShim>(&bytes), Err(DecodeError::Truncated));
    // An Exec whose args are said to be more than any list may have.
    let mut bytes = vec![1, 0, 2];
    bytes.extend([0; 4 + 4 + 1 + 1]);
    bytes.extend(70_000_u32.to_le_bytes());
    assert_eq!(decode::<Exec>(&bytes), Err(DecodeError::TooMany));
}

/// What a shim or a runtime of protocol 1 sends and what it left on disk: bytes that must mean the same for ever.
#[test]
fn the_first_protocols_frames_are_still_read() {
    let hello = [1, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(decode(&hello), Ok(ToShim { number: 1, request: Request::Hello { protocol: 1 } }));
    assert_eq!(encode(&ToShim { number: 1, request: Request::Hello { protocol: 1 } }).as_deref(), Ok(&hello[..]));
    let done = [1, 0, 4, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(decode(&done), Ok(FromShim::Reply { number: 7, reply: Reply::Done }));
    let mut exit = vec![1, 0, 5];
    exit.extend([5_i32, 137, 9].into_iter().flat_map(i32::to_le_bytes));
    exit.extend([1_i64, 2].into_iter().flat_map(i64::to_le_bytes));
    assert_eq!(decode(&exit), Ok(Exit { pid: 5, code: 137, signal: 9, started_at: 1, finished_at: 2 }));
}

#[test]
fn what_is_too_large_is_not_sent() {
    let request = Request::ReopenLog { container: "x".repeat(MAX_MESSAGE) };
    assert_eq!(encode(&ToShim { number: 1, request }), Err(EncodeError::TooLarge { limit: MAX_MESSAGE }));
    let process = Process { args: vec![String::new(); MAX_ITEMS + 1], ..Process::default() };
    assert_eq!(
        encode(&Exec { id: String::new(), container: String::new(), delegate: None, process, user: None }),
        Err(EncodeError::TooMany)
    );
    assert_eq!(decode::<Exit>(&[0; 300]), Err(DecodeError::TooLarge { limit: 256 }));
}
