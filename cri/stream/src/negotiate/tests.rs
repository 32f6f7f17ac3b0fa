use super::*;

fn request(method: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut builder = Request::builder().method(method).uri("/exec/x");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).expect("request")
}

fn spdy_request(protocols: &[&str]) -> Request<()> {
    let mut headers = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    headers.extend(protocols.iter().map(|protocol| ("x-stream-protocol-version", *protocol)));
    request("POST", &headers)
}

fn socket_request(protocol: Option<&str>) -> Request<()> {
    let mut headers = vec![
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    headers.extend(protocol.map(|protocol| ("sec-websocket-protocol", protocol)));
    request("GET", &headers)
}

#[test]
fn spdy_takes_the_clients_first_that_is_served() {
    for (wanted, version, name) in [
        (&["v4.channel.k8s.io", "channel.k8s.io"][..], Version::V4, "v4.channel.k8s.io"),
        (&["v9.channel.k8s.io, v2.channel.k8s.io"][..], Version::V2, "v2.channel.k8s.io"),
        (&["v5.channel.k8s.io", "v4.channel.k8s.io"][..], Version::V5, "v5.channel.k8s.io"),
        (&["channel.k8s.io"][..], Version::V1, "channel.k8s.io"),
    ] {
        let agreed = remote_command(&spdy_request(wanted)).expect("agreed");
        assert_eq!((agreed.transport, agreed.version), (Transport::Spdy, version));
        assert_eq!(agreed.headers[VERSION], name);
        assert_eq!(agreed.headers[UPGRADE], "SPDY/3.1");
    }
}

#[test]
fn spdy_refuses_as_the_reference_does() {
    let none = remote_command(&spdy_request(&[])).expect_err("no protocol");
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
    let empty = remote_command(&spdy_request(&[" , "])).expect_err("empty");
    assert_eq!(empty.status, StatusCode::BAD_REQUEST);
    let unknown = remote_command(&spdy_request(&["v9.channel.k8s.io"])).expect_err("unknown");
    assert_eq!(unknown.status, StatusCode::FORBIDDEN);
    assert_eq!(unknown.headers.get_all(ACCEPTED).iter().count(), REMOTE_SPDY.len());
    assert!(unknown.reason.contains("v9.channel.k8s.io"), "{}", unknown.reason);
    let plain = remote_command(&request("POST", &[])).expect_err("no upgrade");
    assert_eq!(plain.status, StatusCode::BAD_REQUEST);
    let forward = port_forward(&spdy_request(&["portforward.k8s.io"]), &[]).expect("agreed");
    assert_eq!(forward.headers[VERSION], "portforward.k8s.io");
}

#[test]
fn a_websocket_is_accepted_with_the_proof_of_the_rfc() {
    let agreed = remote_command(&socket_request(Some("v5.channel.k8s.io"))).expect("agreed");
    // RFC 6455 section 1.3.
    assert_eq!(agreed.headers[SOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(agreed.headers[SOCKET_PROTOCOL], "v5.channel.k8s.io");
    assert_eq!((agreed.transport, agreed.version), (Transport::Channels(Coding::Binary, true), Version::V5));
    let unnamed = remote_command(&socket_request(None)).expect("agreed");
    assert_eq!(unnamed.version, Version::V1);
    assert!(!unnamed.headers.contains_key(SOCKET_PROTOCOL));
    for (name, coding, version) in [
        ("base64.channel.k8s.io", Coding::Base64, Version::V1),
        ("v4.base64.channel.k8s.io", Coding::Base64, Version::V4),
        ("channel.k8s.io", Coding::Binary, Version::V1),
        ("v4.channel.k8s.io", Coding::Binary, Version::V4),
    ] {
        let agreed = remote_command(&socket_request(Some(name))).expect("agreed");
        assert_eq!((agreed.transport, agreed.version), (Transport::Channels(coding, false), version), "{name}");
    }
}

#[test]
fn a_websocket_is_refused_as_the_reference_does() {
    let unknown = remote_command(&socket_request(Some("chat"))).expect_err("unknown");
    assert_eq!(unknown.status, StatusCode::FORBIDDEN);
    let mut posted = socket_request(None);
    *posted.method_mut() = Method::POST;
    assert_eq!(remote_command(&posted).expect_err("POST").status, StatusCode::METHOD_NOT_ALLOWED);
    for missing in ["sec-websocket-key", "sec-websocket-version"] {
        let mut request = socket_request(None);
        request.headers_mut().remove(missing);
        assert_eq!(remote_command(&request).expect_err(missing).status, StatusCode::BAD_REQUEST);
    }
}

#[test]
fn the_old_port_forward_needs_ports_and_the_tunnel_does_not() {
    let old = socket_request(Some("v4.channel.k8s.io"));
    assert!(port_forward(&old, &[80]).is_ok());
    assert_eq!(port_forward(&old, &[]).expect_err("no port").status, StatusCode::BAD_REQUEST);
    let tunnel = port_forward(&socket_request(Some("SPDY/3.1+portforward.k8s.io")), &[]).expect("agreed");
    assert_eq!(tunnel.transport, Transport::Tunnel);
}
