use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn one(text: &str) -> Value {
    let mut documents = documents(text).expect(text);
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).to_value()
}

fn refused(text: &str) -> String {
    documents(text).expect_err(text).to_string()
}

#[test]
fn lines_are_kept() {
    let document = &documents("a: 1\nb:\n- x\n- z: 2\n").expect("yaml")[0];
    let b = document.get("b").expect("b");
    let Data::Sequence(items) = &b.data else { panic!("a list") };
    assert_eq!((document.get("a").expect("a").line, items[0].line, items[1].get("z").expect("z").line), (1, 3, 4));
}

#[test]
fn merges_are_assignments_in_place() {
    assert_eq!(one("x: &x {a: 1, b: 2}\nz:\n  <<: *x\n  b: 3\n")["z"], json!({"a": 1, "b": 3}));
    assert_eq!(one("x: &x {a: 1, b: 2}\nz:\n  b: 3\n  <<: *x\n")["z"], json!({"a": 1, "b": 2}));
    assert_eq!(one("p: &p {a: 1}\nq: &q {a: 2, b: 2}\nz:\n  <<: [*p, *q]\n")["z"], json!({"a": 1, "b": 2}));
    assert_eq!(one("z: {\"<<\": 1}\n")["z"], json!({"<<": 1}));
    assert!(refused("x: &x [{a: 1}]\nz:\n  <<: *x\n").contains("map merge requires"));
    assert!(refused("z:\n  <<: 3\n").contains("map merge requires"));
}

#[test]
fn what_is_ambiguous_or_impossible_is_refused_with_its_line() {
    assert_eq!(refused("a: 1\nb: 2\na: 3\n"), "line 3: key \"a\" is already set on line 1");
    assert_eq!(refused("1: a\n\"1\": b\n"), "line 2: key \"1\" is already set on line 1");
    assert_eq!(refused("a: .nan\n"), "line 1: NaN can't be said in JSON");
    assert!(refused("? [a]\n: 1\n").contains("a key must not be a list"));
    assert!(refused("~: 1\n").contains("a key must not be null"));
    assert!(refused("a: \u{1}\n").contains("control characters"));
    assert!(refused("a: *nope\n").starts_with("line 1"));
    assert!(refused("a: [1, 2\n").starts_with("line"));
    assert_eq!(refused("\tfoo: 1\n"), "line 1: a tab must not be used to indent");
    assert_eq!(refused("a:\n\tb: 1\n"), "line 2: tabs disallowed within this context (block indentation)");
    assert_eq!(
        one("a: {b:\t1}\nc:\t2\ngrüß:\t\tx y\nd: |\n  x\n  \ty\n"),
        json!({"a": {"b": 1}, "c": 2, "grüß": "x y", "d": "x\n\ty\n"})
    );
}

#[test]
fn growth_is_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..9 {
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")));
    }
    assert!(refused(&bomb).contains("once aliases are expanded"));
    assert!(refused(&"[".repeat(5000)).starts_with("line 1"));
    assert!(refused(&(0..200).map(|n| format!("{}- \n", " ".repeat(n))).collect::<String>()).contains("nest deeper"));
    assert!(refused("a: &a [*a]\n").contains("alias"));
    let long = "x".repeat(LONGEST + 1);
    assert!(refused(&long).contains("longer than"));
}

#[test]
fn documents_are_separate_and_empty_ones_vanish() {
    let all = documents("# nothing\n---\na: 1\n---\n\n---\n- b\n...\n").expect("yaml");
    assert_eq!(all.iter().map(Node::to_value).collect::<Vec<_>>(), [json!({"a": 1}), json!(["b"])]);
    assert!(documents("").expect("empty").is_empty());
    assert!(documents("a: &x 1\n---\nb: *x\n").is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[-a-z0-9:#&*!|>'\"%@`{}\\[\\], \n\t?~<.]{0,200}") {
        let _ = documents(&text);
    }

    #[test]
    fn json_is_yaml(numbers in prop::collection::vec(any::<i64>(), 0..8), text in "[ -~]{0,40}") {
        let value = json!({"numbers": numbers, "text": text});
        prop_assert_eq!(one(&value.to_string()), value);
    }
}
