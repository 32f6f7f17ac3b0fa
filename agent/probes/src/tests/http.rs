use serde_json::json;

use super::servers::{Scripted, time_waits};
use super::*;

fn get(server: &Scripted) -> Value {
    json!({"httpGet": {"path": "/healthz?full=1", "port": server.port}, "timeoutSeconds": 5})
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status() {
    let rows = [
        (200, Outcome::Success),
        (204, Outcome::Success),
        (299, Outcome::Success),
        (304, Outcome::Warning("Probe terminated redirects, Response body: no".into())),
        (400, Outcome::Failure("HTTP probe failed with statuscode: 400".into())),
        (500, Outcome::Failure("HTTP probe failed with statuscode: 500".into())),
    ];
    for (status, expected) in rows {
        let body = if status == 304 || status == 204 { "" } else { "Content-Length: 2\r\n\r\nno" };
        let answer = if body.is_empty() {
            format!("HTTP/1.1 {status} Any\r\n\r\n")
        } else {
            format!("HTTP/1.1 {status} Any\r\n{body}")
        };
        let server = Scripted::start(&answer).await;
        let expected = match expected {
            // Such an answer has no body.
            Outcome::Warning(words) => Outcome::Warning(words.replace("no", "")),
            other => other,
        };
        assert_eq!(run(get(&server)).await, expected, "{status}");
        let heads = server.heads();
        let head = heads[0].to_ascii_lowercase();
        assert!(head.starts_with("get /healthz?full=1 http/1.1\r\n"), "{head}");
        for line in [
            format!("host: 127.0.0.1:{}", server.port),
            "user-agent: kube-probe/1.37".into(),
            "accept: */*".into(),
            "connection: close".into(),
        ] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
        }
    }
}

#[tokio::test]
async fn declared_headers_win() {
    let server = Scripted::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let headers = json!([{"name": "Host", "value": "shop.example"}, {"name": "user-agent", "value": "mine"}, {"name": "Accept", "value": ""},
        {"name": "X-Twice", "value": "1"}, {"name": "X-Twice", "value": "2"}]);
    let declared = json!({"httpGet": {"path": "a b/ü%2F#frag", "port": server.port, "httpHeaders": headers}});
    assert_eq!(run(declared).await, Outcome::Success);
    let head = server.heads()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /a%20b/%c3%bc%2f http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: shop.example\r\n") && head.contains("\r\nuser-agent: mine\r\n"), "{head}");
    assert!(head.contains("\r\nx-twice: 1\r\n") && head.contains("\r\nx-twice: 2\r\n"), "{head}");
    assert!(!head.contains("\r\naccept:"), "{head}");
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let here = "HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n";
    let circle = Scripted::start(here).await;
    let words = failure(run(get(&circle)).await);
    assert!(words.ends_with(": stopped after 10 redirects"), "{words}");
    assert_eq!(circle.heads().len(), 10);
    assert!(circle.heads()[1].starts_with("GET /next "));

    let goal = Scripted::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let location = format!("http://127.0.0.1:{}/there", goal.port);
    let way =
        Scripted::start(&format!("HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(run(get(&way)).await, Outcome::Success);
    assert!(goal.heads()[0].starts_with("GET /there "));

    let away =
        Scripted::start("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:{port}/\r\nContent-Length: 3\r\n\r\nbye")
            .await;
    let told = "Probe terminated redirects, Response body: bye";
    assert_eq!(run(get(&away)).await, Outcome::Warning(told.into()));
    let nowhere = Scripted::start("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await;
    assert!(matches!(run(get(&nowhere)).await, Outcome::Warning(_)));
}

#[tokio::test]
async fn what_is_no_answer_fails_with_the_cause() {
    let dead = dead_port().await;
    let words = failure(run(json!({"httpGet": {"path": "/", "port": dead}})).await);
    assert_eq!(
        words,
        format!("Get \"http://127.0.0.1:{dead}/\": dial tcp 127.0.0.1:{dead}: connect: connection refused")
    );
    let silent = Scripted::start("").await;
    let words = failure(run(json!({"httpGet": {"path": "/", "port": silent.port}, "timeoutSeconds": 1})).await);
    assert!(words.contains("context deadline exceeded"), "{words}");
    let nonsense = Scripted::start("SSH-2.0-x\r\n").await;
    assert!(failure(run(get(&nonsense)).await).starts_with("Get \"http://127.0.0.1:"));
    let endless = Scripted::start(&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20))).await;
    assert!(matches!(run(get(&endless)).await, Outcome::Failure(_)), "a head without end");
    let long =
        Scripted::start(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000))).await;
    assert_eq!(run(get(&long)).await, Outcome::Success, "a long body is not read to its end");
}

#[tokio::test]
async fn any_certificate_will_do() {
    let server = Scripted::start_tls("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let https = |port| json!({"httpGet": {"path": "/", "port": port, "scheme": "HTTPS"}, "timeoutSeconds": 5});
    assert_eq!(run(https(server.port)).await, Outcome::Success);
    assert!(server.heads()[0].starts_with("GET / HTTP/1.1\r\n"));
    let plain = Scripted::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let words = failure(run(https(plain.port)).await);
    assert!(words.ends_with("http: server gave HTTP response to HTTPS client"), "{words}");
}

#[tokio::test]
async fn connections_leave_nothing_behind() {
    let server = Scripted::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    for _ in 0..5 {
        assert_eq!(run(get(&server)).await, Outcome::Success);
    }
    // The last words are heard by tasks of their own.
    for _ in 0..200 {
        if time_waits(server.port) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(time_waits(server.port), 0);
}
