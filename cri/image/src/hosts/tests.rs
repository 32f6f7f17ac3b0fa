use std::fs;

use super::*;

fn configured(folder: &str, text: &str) -> (PathBuf, RegistryConfig) {
    let dir = std::env::temp_dir().join(format!("berth-image-hosts-{}-{folder}", std::process::id()));
    fs::create_dir_all(dir.join(folder)).expect("folder");
    fs::write(dir.join(folder).join("hosts.toml"), text).expect("file");
    let config = RegistryConfig::new(&dir);
    (dir, config)
}

fn urls(config: &RegistryConfig, registry: &str) -> Vec<String> {
    config.endpoints(registry).expect("endpoints").iter().map(|host| host.url(registry, "x")).collect()
}

#[test]
fn without_a_file_only_loopback_is_plain() {
    let config = RegistryConfig::none();
    assert_eq!(urls(&config, "docker.io"), ["https://registry-1.docker.io/v2/x"]);
    assert_eq!(urls(&config, "r.example:5000"), ["https://r.example:5000/v2/x"]);
    assert_eq!(urls(&config, "127.0.0.1:5000"), ["http://127.0.0.1:5000/v2/x"]);
    assert_eq!(urls(&config, "[::1]:5000"), ["http://[::1]:5000/v2/x"]);
    assert_eq!(urls(&RegistryConfig::new("/nonexistent"), "localhost"), ["http://localhost/v2/x"]);
}

#[test]
fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
    let (dir, config) = configured(
        "registry.k8s.io",
        r#"
        server = "https://registry.k8s.io"
        [host."http://10.0.0.1:5000"]
          capabilities = ["pull", "resolve"]
          dial_timeout = "500ms"
        [host."https://a.mirror/prefix/v2"]
          capabilities = ["pull"]
          override_path = true
          skip_verify = true
          ca = "/etc/ca.pem"
          client = [["/c.pem", "/k.pem"]]
          [host."https://a.mirror/prefix/v2".header]
            x-custom = ["a", "b"]
        "#,
    );
    assert_eq!(
        urls(&config, "registry.k8s.io"),
        [
            "http://10.0.0.1:5000/v2/x?ns=registry.k8s.io",
            "https://a.mirror/prefix/v2/x?ns=registry.k8s.io",
            "https://registry.k8s.io/v2/x",
        ]
    );
    let hosts = config.endpoints("registry.k8s.io").expect("endpoints");
    assert_eq!(hosts[0].dial_timeout, Some(Duration::from_millis(500)));
    assert!(hosts[1].pull && !hosts[1].resolve && hosts[1].mirror && hosts[1].tls.skip_verify);
    assert_eq!(hosts[1].tls.client, Some(("/c.pem".into(), "/k.pem".into())));
    assert_eq!(hosts[1].headers.len(), 2);
    assert!(hosts[2].resolve && !hosts[2].mirror);
    fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn the_folder_may_name_the_port_in_both_ways_and_default_comes_last() {
    for folder in ["10.1.2.3_5000_", "10.1.2.3:5000", "_default"] {
        let (dir, config) = configured(folder, "server = \"http://10.1.2.3:5000\"");
        assert_eq!(urls(&config, "10.1.2.3:5000"), ["http://10.1.2.3:5000/v2/x"], "{folder}");
        fs::remove_dir_all(dir).expect("clean up");
    }
}

#[test]
fn mistakes_name_file_and_key_in_one_line() {
    for (folder, text, key) in [
        ("bad-syntax", "server = ", "line 1"),
        ("bad-cap", "[host.\"https://a\"]\ncapabilities = [\"pul\"]", "host.\"https://a\": capabilities: \"pul\""),
        ("bad-url", "server = \"ftp://a\"", "server: \"ftp://a\""),
        ("bad-time", "dial_timeout = \"soon\"", "dial_timeout"),
        ("bad-type", "skip_verify = \"yes\"", "skip_verify"),
    ] {
        let (dir, config) = configured(folder, text);
        let error = config.endpoints(folder).expect_err(folder).to_string();
        assert!(error.contains(&format!("{folder}/hosts.toml")) && error.contains(key), "{error}");
        assert!(!error.contains('\n'));
        fs::remove_dir_all(dir).expect("clean up");
    }
}
