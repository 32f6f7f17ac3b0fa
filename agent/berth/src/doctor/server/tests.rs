use std::net::TcpListener;
use std::thread;

use super::*;

fn endpoint() -> Endpoint {
    Endpoint::parse("cp.example.com:6443").expect("valid")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn answered(answer: Answer) -> Server {
    Server::Answered { endpoint: endpoint(), addresses: vec![IpAddr::from([192, 0, 2, 1])], answer }
}

fn answer(date: Option<i64>, version: &str) -> Answer {
    Answer { status: 200, date: date.map(at), received: at(0), version: Some(version.to_owned()) }
}

fn verdicts(server: &Server) -> Vec<(&'static str, Verdict)> {
    let findings = judge(server);
    for finding in findings.iter().filter(|finding| finding.verdict != Verdict::Good) {
        assert!(!finding.cost.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
    }
    findings.iter().map(|finding| (finding.what, finding.verdict)).collect()
}

#[test]
fn endpoints_have_a_host_and_a_port() {
    for (typed, shown) in [
        ("192.0.2.1:6443", "192.0.2.1:6443"),
        ("https://cp.example.com:6443/", "cp.example.com:6443"),
        ("[2001:db8::1]:6443", "[2001:db8::1]:6443"),
    ] {
        assert_eq!(Endpoint::parse(typed).expect(typed).to_string(), shown);
    }
    for (typed, part) in [
        ("cp.example.com", "no port"),
        ("cp.example.com:https", "\"https\" is no port"),
        ("cp:0", "is no port"),
        ("2001:db8::1:6443", "brackets"),
        ("under score:6443", "neither a name"),
        (":6443", "neither a name"),
    ] {
        assert!(Endpoint::parse(typed).expect_err(typed).contains(part), "{typed}");
    }
}

#[test]
fn each_stop_on_the_way_is_told() {
    let addresses = vec![IpAddr::from([192, 0, 2, 1])];
    let reason = || "connection refused".to_owned();
    assert_eq!(
        verdicts(&Server::Malformed { typed: "x".into(), reason: reason() }),
        [("API server", Verdict::Missing)]
    );
    assert_eq!(verdicts(&Server::Unknown { host: "x".into(), reason: reason() }), [("DNS", Verdict::Missing)]);
    let unreachable = Server::Unreachable { endpoint: endpoint(), addresses: addresses.clone(), reason: reason() };
    assert_eq!(verdicts(&unreachable), [("DNS", Verdict::Good), ("reachability", Verdict::Missing)]);
    let silent = Server::NoAnswer { endpoint: endpoint(), addresses, reason: reason() };
    assert_eq!(verdicts(&silent), [("DNS", Verdict::Good), ("reachability", Verdict::Missing)]);
    let all = ["DNS", "reachability", "clock", "version"].map(|what| (what, Verdict::Good));
    assert_eq!(verdicts(&answered(answer(Some(0), "v1.37.2"))), all);
}

#[test]
fn clocks_are_compared() {
    let clock = |date| judge(&answered(answer(date, "v1.37.2"))).swap_remove(2);
    assert_eq!(clock(Some(30)).verdict, Verdict::Good);
    assert_eq!(clock(None).verdict, Verdict::Less);
    assert_eq!((clock(Some(-31)).verdict, clock(Some(300)).verdict), (Verdict::Less, Verdict::Less));
    let behind = clock(Some(86_400));
    assert_eq!((behind.verdict, behind.detail.as_str()), (Verdict::Missing, "24 hours behind the API server's"));
    assert_eq!(clock(Some(-301)).detail, "5 minutes ahead of the API server's");
}

#[test]
fn versions_may_differ_by_so_much() {
    for (theirs, verdict) in [
        ("v1.37.0", Verdict::Good),
        ("v1.40.1+k3s1", Verdict::Good),
        ("v1.41.0", Verdict::Less),
        ("v1.36.9", Verdict::Less),
        ("unknown", Verdict::Good),
    ] {
        assert_eq!(version(theirs).verdict, verdict, "{theirs}");
    }
}

#[test]
fn answers_are_read_in_whatever_form() {
    let text = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ndate: Tue, 24 Nov 2026 08:35:37 GMT\r\n\r\n\
        1f\r\n{\"gitVersion\": \"v1.37.2\"}\r\n0\r\n\r\n";
    let answer = read(text.as_bytes(), at(0)).expect("HTTP");
    assert_eq!(answer.date.expect("a date").to_string(), "2026-11-24T08:35:37Z");
    assert_eq!((answer.status, answer.version.as_deref()), (200, Some("v1.37.2")));
    let forbidden =
        read(b"HTTP/1.0 403 Forbidden\r\nDate: yesterday\r\n\r\n{\"kind\": \"Status\"}", at(0)).expect("HTTP");
    assert_eq!((forbidden.status, forbidden.date, forbidden.version), (403, None, None));
    assert_eq!(read(b"SSH-2.0-OpenSSH_10.0\r\n", at(0)), None);
}

#[test]
fn a_port_that_nobody_listens_on_and_one_without_tls_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("address").to_string();
    let speaker = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"SSH-2.0-OpenSSH_10.0\r\n").expect("write");
    });
    assert!(matches!(Server::visit(&address), Server::NoAnswer { .. }));
    speaker.join().expect("no panic");
    let Server::Unreachable { reason, .. } = Server::visit(&address) else { panic!("nobody listens any more") };
    assert_eq!(reason, "Connection refused");
    assert!(matches!(Server::visit("no.such.name.invalid:6443"), Server::Unknown { .. }));
}
