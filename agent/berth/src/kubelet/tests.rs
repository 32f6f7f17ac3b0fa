use super::*;

fn own() -> Vec<Own> {
    [
        ("config", true),
        ("kubeconfig", true),
        ("bootstrap-kubeconfig", true),
        ("container-runtime-endpoint", true),
        ("hostname-override", true),
        ("node-ip", true),
        ("node-labels", true),
        ("log-format", true),
        ("v", true),
        ("some-switch", false),
    ]
    .map(|(name, takes_value)| Own { name: name.to_owned(), takes_value })
    .to_vec()
}

fn kubelet(arguments: &str) -> Result<Asked, FlagError> {
    read(arguments.split_whitespace().map(str::to_owned), &own(), true)
}

fn line(arguments: &str) -> Line {
    match kubelet(arguments) {
        Ok(Asked::Run(line)) => line,
        other => panic!("{arguments}: {other:?}"),
    }
}

#[test]
fn the_line_of_kubeadm_s_unit_is_understood() {
    let line = line(
        "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf \
         --config=/var/lib/kubelet/config.yaml --hostname-override=worker-1 --node-ip 10.0.0.7 \
         --node-labels=a=b --node_labels c=d,e= --register-with-taints=dedicated=gpu:NoSchedule,spot:NoExecute \
         --provider-id=kind://docker/kind/kind-worker --fail-swap-on=false --cgroup-root /kubelet \
         --runtime-cgroups=/system.slice/containerd.service --pod-infra-container-image=registry.k8s.io/pause:3.10 \
         --kubeconfig=/other.conf --v=4 --container-runtime-endpoint=",
    );
    assert_eq!(
        line.options,
        [
            "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
            "--config=/var/lib/kubelet/config.yaml",
            "--hostname-override=worker-1",
            "--kubeconfig=/other.conf",
            "--node-ip=10.0.0.7",
            "--node-labels=a=b,c=d,e=",
            "--v=4",
        ]
    );
    let fields: Vec<_> = line.fields.iter().map(|over| (over.field.as_str(), over.value.clone())).collect();
    assert_eq!(
        fields,
        [
            (
                "registerWithTaints",
                json!([{"key": "dedicated", "effect": "NoSchedule", "value": "gpu"}, {"key": "spot", "effect": "NoExecute"}])
            ),
            ("providerID", json!("kind://docker/kind/kind-worker")),
            ("failSwapOn", json!(false)),
            ("cgroupRoot", json!("/kubelet")),
        ]
    );
    assert_eq!(line.unused, ["--runtime-cgroups", "--pod-infra-container-image"]);
}

#[test]
fn values_are_what_the_fields_need() {
    let of = |arguments: &str| line(arguments).fields.remove(0).value;
    assert_eq!(of("--cluster-dns=10.96.0.10,10.96.0.11"), json!(["10.96.0.10", "10.96.0.11"]));
    assert_eq!(of("--max-pods 7"), json!(7));
    assert_eq!(of("--rotate-certificates"), json!(true));
    assert_eq!(of("--rotate-certificates --anonymous-auth=F"), json!(true));
    assert_eq!(of("--feature-gates=A=true,B=false"), json!({"A": true, "B": false}));
    assert_eq!(
        of("--eviction-hard=memory.available<1Gi,nodefs.available<5%"),
        json!({"memory.available": "1Gi", "nodefs.available": "5%"})
    );
    assert_eq!(of("--kube-reserved=cpu=1,memory=1Gi"), json!({"cpu": "1", "memory": "1Gi"}));
    assert_eq!(line("--logging-format=json -v 6").options, ["--log-format=json", "--v=6"]);
    assert_eq!(line("-v=2 --some-switch").options, ["--some-switch", "--v=2"]);
}

#[test]
fn what_cannot_be_meant_is_said_in_pflag_s_words() {
    let cases = [
        ("--no-such-flag=1", "failed to parse kubelet flag: unknown flag: --no-such-flag"),
        ("-x", "failed to parse kubelet flag: unknown shorthand flag: 'x' in -x"),
        ("--=1", "failed to parse kubelet flag: bad flag syntax: --=1"),
        ("--config", "failed to parse kubelet flag: flag needs an argument: --config"),
        (
            "--fail-swap-on=maybe",
            "failed to parse kubelet flag: invalid argument \"maybe\" for \"--fail-swap-on\" flag: \
             strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        ("--max-pods=many", "invalid argument \"many\" for \"--max-pods\" flag: strconv.ParseInt: parsing \"many\""),
        (
            "--feature-gates=A",
            "invalid argument \"A\" for \"--feature-gates\" flag: malformed pair, expect string=bool",
        ),
        ("--register-with-taints=a=b", "invalid taint spec: a=b"),
        ("run", "unknown command run"),
    ];
    for (arguments, says) in cases {
        let error = kubelet(arguments).expect_err(arguments).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn version_and_help_come_first() {
    for arguments in ["--version", "--version=raw", "--kubeconfig=/x --version"] {
        assert_eq!(kubelet(arguments), Ok(Asked::Version), "{arguments}");
    }
    assert_eq!(kubelet("-h"), Ok(Asked::Help));
    // kubeadm@v1.37.2:app/preflight/utils.go#GetKubeletVersion: digits, dots, then [-\w.+]*, and semver behind it.
    let (numbers, build) = VERSION.strip_prefix('v').expect("v").split_once('+').expect("a build");
    assert_eq!(numbers, "1.37.2");
    assert!(build.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'));
}

#[test]
fn as_berth_agent_what_is_unknown_is_left_to_clap() {
    let asked = read(["--nope", "x", "--max-pods=3", "--config=a"].map(str::to_owned), &own(), false);
    let Ok(Asked::Run(line)) = asked else { panic!("{asked:?}") };
    assert_eq!(line.options, ["--nope", "x", "--config=a"]);
    assert_eq!(line.fields.len(), 1);
}

#[test]
fn the_table_is_sorted_and_has_no_doubles() {
    let names: Vec<_> = table::FLAGS.iter().map(|(name, ..)| *name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    assert!(names.len() > 110, "{}", names.len());
    for (name, kind, field) in table::FLAGS {
        assert_eq!(field.is_empty(), matches!(kind, Kind::Unused | Kind::UnusedSwitch), "{name}");
    }
}
