use std::time::Duration;

use super::*;

/// As kind v0.32 writes it, shortened: five documents, of which one concerns a node that joins.
const KIND: &str = r#"
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
clusterName: "kind"
controlPlaneEndpoint: "kind-control-plane:6443"
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
- token: "abcdef.0123456789abcdef"
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration:
  criSocket: "unix:///run/containerd/containerd.sock"
  kubeletExtraArgs:
  - name: "node-ip"
    value: "172.18.0.3"
  - name: "provider-id"
    value: "kind://docker/kind/kind-worker"
  - name: "node-labels"
    value: "a=b,c=d"
discovery:
  bootstrapToken:
    apiServerEndpoint: "kind-control-plane:6443"
    token: "abcdef.0123456789abcdef"
    unsafeSkipCAVerification: true
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupRoot: /kubelet
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: "iptables"
"#;

const TOKEN: &str = "discovery: {bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: '10.0.0.1:6443', \
                     unsafeSkipCAVerification: true}}\n";

fn read(text: &str) -> Result<Request, JoinError> {
    load(Path::new("/etc/join.yaml"), text, &Options::default(), "host")
}

fn joined(version: &str, body: &str) -> Result<Request, JoinError> {
    read(&format!("apiVersion: kubeadm.k8s.io/{version}\nkind: JoinConfiguration\n{body}"))
}

fn refused(version: &str, body: &str) -> String {
    joined(version, body).expect_err(body).to_string()
}

#[test]
fn kind_s_file_is_taken_as_it_is() {
    let request = read(KIND).expect("reads");
    assert_eq!(request.node, "host");
    assert_eq!(request.cri_socket.as_deref(), Some("unix:///run/containerd/containerd.sock"));
    assert_eq!(
        request.flags(),
        ["--node-ip=172.18.0.3", "--provider-id=kind://docker/kind/kind-worker", "--node-labels=a=b,c=d"]
    );
    let Discovery::Token { endpoint, token, pins } = &request.discovery else { panic!("a token") };
    assert_eq!((endpoint.as_str(), token.id(), pins.is_empty()), ("kind-control-plane:6443", "abcdef", true));
    assert!(!request.is_old_format);
}

#[test]
fn every_supported_field_has_its_effect() {
    let body = format!(
        "{TOKEN}caCertPath: /etc/pki/k8s.crt\nskipPhases: [preflight]\ntimeouts: {{discovery: 1m, tlsBootstrap: 2m30s, \
         kubernetesAPICall: 1m}}\nnodeRegistration:\n  name: Worker-7\n  imagePullPolicy: Always\n  imagePullSerial: true\n  \
         ignorePreflightErrors: [Swap]\n  taints:\n  - {{key: a, value: b, effect: NoExecute}}\n"
    );
    for version in ["v1", "v1beta4"] {
        let request = joined(version, &body).expect("reads");
        assert_eq!(request.node, "worker-7");
        assert_eq!(request.authority, Path::new("/etc/pki/k8s.crt"));
        assert_eq!(request.timeouts.discovery, Some(Duration::from_secs(60)));
        assert_eq!(request.timeouts.tls_bootstrap, Some(Duration::from_secs(150)));
        assert_eq!(request.flags(), ["--hostname-override=worker-7", "--register-with-taints=a=b:NoExecute"]);
        assert!(request.ignored.contains("swap"));
    }
}

#[test]
fn the_old_format_has_its_own_shapes() {
    let body = format!(
        "{}nodeRegistration: {{kubeletExtraArgs: {{node-ip: 10.0.0.7, hostname-override: other}}}}\n",
        TOKEN.trim_end().replace("true}}", "true}, timeout: 5m0s}\n")
    );
    let request = joined("v1beta3", &body).expect("reads");
    assert!(request.is_old_format);
    assert_eq!(request.timeouts.discovery, Some(Duration::from_secs(300)));
    assert_eq!(request.flags(), ["--hostname-override=other", "--node-ip=10.0.0.7"]);
    let list = format!("{TOKEN}nodeRegistration: {{kubeletExtraArgs: [{{name: a, value: b}}]}}\n");
    assert!(refused("v1beta3", &list).contains("is a mapping of names to values"));
    assert!(refused("v1beta3", &format!("{TOKEN}timeouts: {{}}\n")).contains("field timeouts"));
}

#[test]
fn a_discovery_file_is_beside_the_configuration() {
    let request =
        joined("v1", "discovery: {file: {kubeConfigPath: info.conf}, tlsBootstrapToken: t}\n").expect("reads");
    assert_eq!(request.discovery, Discovery::File { path: "/etc/info.conf".into() });
    assert_eq!(request.tls_bootstrap_token.as_deref(), Some("t"));
}

#[test]
fn what_is_not_supported_is_refused_by_its_path() {
    let cases = [
        ("dryRun: true\n", "/etc/join.yaml: line 4: field dryRun: is not supported"),
        ("controlPlane: {localAPIEndpoint: {}}\n", "field controlPlane: is not supported"),
        ("skipPhases: [preflight, kubelet-start]\n", "field skipPhases: \"kubelet-start\" is not supported"),
        ("patches: {directory: /a}\n", "field patches.directory: is not supported"),
        ("caCertPath: pki/ca.crt\n", "field caCertPath: \"pki/ca.crt\" is not absolute"),
        ("nodeRegistration: {criSocket: 'tcp://a'}\n", "field nodeRegistration.criSocket: \"tcp://a\""),
        ("nodeRegistration: {nam: a}\n", "field nodeRegistration.nam: is not known"),
        ("nodeRegistration: {kubeletExtraArgs: {a: b}}\n", "kubeletExtraArgs: is a list of pairs"),
        ("nodeRegistration: {kubeletExtraArgs: [{name: a, value: 1}]}\n", "kubeletExtraArgs[0].value: is no string"),
        (
            "nodeRegistration: {kubeletExtraArgs: [{name: a, value: b, mergeMethod: append}]}\n",
            "kubeletExtraArgs[0].mergeMethod: is not supported",
        ),
        (
            "nodeRegistration: {kubeletExtraArgs: [{name: --a, value: b}]}\n",
            "kubeletExtraArgs[0]: is no argument's name",
        ),
        ("nodeRegistration: {kubeletExtraArgs: [{name: a, value: 'b c'}]}\n", "kubeletExtraArgs[0]: white space"),
        ("nodeRegistration: {name: a_b}\n", "\"a_b\" is no node name"),
        ("timeouts: {discovery: soon}\n", "field timeouts.discovery: \"soon\" is no duration"),
        ("timeouts: {discovery: [1]}\n", "field timeouts.discovery: invalid type"),
        ("---\napiVersion: kubeadm.k8s.io/v1\nkind: JoinConfiguration\n", "is a second JoinConfiguration"),
        ("---\nkind: Pod\n", "\"Pod\" is none of kubeadm's kinds"),
    ];
    for (body, says) in cases {
        let error = refused("v1", &format!("{TOKEN}{body}"));
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn discovery_must_be_complete() {
    let token = |rest: &str| format!("discovery: {{bootstrapToken: {{apiServerEndpoint: 'a:1', {rest}}}}}\n");
    let cases = [
        (String::new(), "field discovery: bootstrapToken or file must be set"),
        ("discovery: {bootstrapToken: {}, file: {}}\n".to_owned(), "cannot both be set"),
        ("discovery: {bootstrapToken: {token: a}}\n".to_owned(), "apiServerEndpoint: is missing"),
        ("discovery: {file: {}}\n".to_owned(), "kubeConfigPath: is missing"),
        ("discovery: {file: {kubeConfigPath: 'https://a/b'}}\n".to_owned(), "an URL is not supported"),
        (token("token: a"), "field discovery.bootstrapToken.token: is not of the form"),
        (token("token: abcdef.0123456789abcdef"), "caCertHashes: using token-based discovery without"),
        (
            token("token: abcdef.0123456789abcdef, caCertHashes: [md5:0]"),
            "caCertHashes: \"md5:0\" is of an unknown kind",
        ),
    ];
    for (body, says) in cases {
        let error = refused("v1", &body);
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("0123456789abcdef "), "{error}");
    }
}

#[test]
fn what_is_no_configuration_is_one_line() {
    assert!(read("").expect_err("empty").to_string().contains("holds no JoinConfiguration"));
    assert!(read("a: [").expect_err("broken").to_string().contains("is not YAML"));
    let error = read("kind: JoinConfiguration\napiVersion: kubeadm.k8s.io/v1beta2\n").expect_err("old").to_string();
    assert!(error.contains("line 2: field apiVersion: \"kubeadm.k8s.io/v1beta2\""), "{error}");
    let options = Options { endpoint: Some("a:1".into()), ..Options::default() };
    let error = load(Path::new("f"), KIND, &options, "host").expect_err("mixed").to_string();
    assert!(error.contains("can not mix '--config' with arguments [HOST:PORT]"), "{error}");
}
