//! nf_tables on the real kernel, in namespaces of the test's own, compared with what `nft` lists. Needs root.

use std::process::Command;

use berth_net::nft::{
    Base, Batch, Chain, Command as Step, CtKey, Data, Element, Expression, Family, Hook, HookPoint, MapData, MetaKey,
    Nft, Operator, Register, Rule, Set, Type, Verdict,
};
use berth_sys::netns::NetNs;

fn in_fresh<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    NetNs::fresh().expect("root").run(test).expect("a thread in the namespace")
}

/// What `nft` lists, without its indentation.
fn listing() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft(8)");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

fn batch(commands: Vec<Step>) -> Batch {
    Batch { family: Family::Inet, table: "berth_test".to_owned(), commands }
}

fn verdicts(name: &str) -> Step {
    Step::AddSet(Set { name: name.to_owned(), key: vec![Type::Ipv4Addr], data: Some(MapData::Verdicts) })
}

fn to_chain(address: [u8; 4], chain: &str) -> Step {
    Step::AddElements {
        set: "pods".to_owned(),
        elements: vec![Element {
            key: address.to_vec(),
            data: Some(Data::Verdict(Verdict::Jump(chain.to_owned()))),
            comment: Some("net c1 eth0".to_owned()),
        }],
    }
}

#[test]
fn nft_reads_our_rules_as_we_mean_them() {
    let shown = in_fresh(|| {
        let r = Register;
        let hook = Hook { kind: "nat", point: HookPoint::Output, priority: -100 };
        let ports = Set {
            name: "ports".to_owned(),
            key: vec![Type::InetProto, Type::InetService],
            data: Some(MapData::Values(vec![Type::Ipv4Addr, Type::InetService])),
        };
        let element = Element {
            key: vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0],
            data: Some(Data::Value(vec![10, 0, 0, 2, 0, 80, 0, 0])),
            comment: Some("who".to_owned()),
        };
        let rule = |expressions, comment: Option<&str>| {
            Step::AddRule(Rule { chain: "out".to_owned(), expressions, comment: comment.map(str::to_owned) })
        };
        let commands = vec![
            Step::AddTable { exclusive: true },
            Step::AddChain(Chain { name: "out".to_owned(), hook: Some(hook) }),
            Step::AddChain(Chain { name: "other".to_owned(), hook: None }),
            Step::AddSet(ports),
            verdicts("pods"),
            to_chain([10, 0, 0, 3], "other"),
            Step::AddElements { set: "ports".to_owned(), elements: vec![element] },
            rule(
                vec![
                    Expression::DestinationType { to: r(0) },
                    Expression::Compare {
                        register: r(0),
                        operator: Operator::Equal,
                        value: Expression::TYPE_LOCAL.to_ne_bytes().to_vec(),
                    },
                    Expression::Verdict(Verdict::Jump("other".to_owned())),
                ],
                Some("a comment"),
            ),
            rule(
                vec![
                    Expression::Meta { key: MetaKey::NetworkProtocol, to: r(0) },
                    Expression::Compare { register: r(0), operator: Operator::Equal, value: vec![2] },
                    Expression::Meta { key: MetaKey::TransportProtocol, to: r(0) },
                    Expression::Payload { base: Base::Transport, offset: 2, length: 2, to: r(1) },
                    Expression::Lookup { set: "ports".to_owned(), key: r(0), to: Some(r(4)) },
                    Expression::Dnat { family: Family::Ip, address: r(4), port: r(5) },
                ],
                None,
            ),
            rule(
                vec![
                    Expression::Ct { key: CtKey::Status, to: r(0) },
                    Expression::Bitwise {
                        from: r(0),
                        to: r(0),
                        mask: Expression::STATUS_DNAT.to_ne_bytes().to_vec(),
                        xor: vec![0; 4],
                    },
                    Expression::Compare { register: r(0), operator: Operator::NotEqual, value: vec![0; 4] },
                    Expression::Meta { key: MetaKey::Mark, to: r(0) },
                    Expression::Bitwise {
                        from: r(0),
                        to: r(0),
                        mask: (!0x2000u32).to_ne_bytes().to_vec(),
                        xor: 0x2000u32.to_ne_bytes().to_vec(),
                    },
                    Expression::SetMark { from: r(0) },
                ],
                None,
            ),
        ];
        Nft::open().expect("socket").apply(&batch(commands)).expect("apply");
        listing()
    });
    let expected = "table inet berth_test {
map ports {
type inet_proto . inet_service : ipv4_addr . inet_service
elements = { tcp . 8080 comment \"who\" : 10.0.0.2 . 80 }
}

map pods {
type ipv4_addr : verdict
elements = { 10.0.0.3 comment \"net c1 eth0\" : jump other }
}

chain out {
type nat hook output priority -100; policy accept;
fib daddr type local jump other comment \"a comment\"
meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports
ct status dnat meta mark set meta mark | 0x00002000
}

chain other {
}
}
";
    assert_eq!(shown, expected);
}

#[test]
fn a_batch_happens_whole_or_not_at_all() {
    in_fresh(|| {
        let mut nft = Nft::open().expect("socket");
        let error = nft
            .apply(&batch(vec![
                Step::AddTable { exclusive: true },
                verdicts("pods"),
                to_chain([10, 0, 0, 3], "missing"),
                Step::AddChain(Chain { name: "c".to_owned(), hook: None }),
            ]))
            .expect_err("there is no such chain");
        assert!(error.is_not_found(), "{error}");
        let told = error.to_string();
        assert!(told.starts_with("nft inet berth_test: add elements of pods (command 3 of 4): "), "{told}");
        assert!(!nft.has_table(Family::Inet, "berth_test").expect("ask"));
        assert_eq!(listing(), "");
    });
}

#[test]
fn elements_are_exclusive_listed_and_deleted_by_key() {
    in_fresh(|| {
        let mut nft = Nft::open().expect("socket");
        let chain = |name: &str| Step::AddChain(Chain { name: name.to_owned(), hook: None });
        let first = [Step::AddTable { exclusive: true }, chain("a"), verdicts("pods"), to_chain([10, 0, 0, 3], "a")];
        nft.apply(&batch(first.to_vec())).expect("apply");
        let error = nft.apply(&batch(vec![Step::AddTable { exclusive: true }])).expect_err("twice");
        assert!(error.is_existing(), "{error}");
        let error = nft.apply(&batch(vec![to_chain([10, 0, 0, 3], "a")])).expect_err("the key is taken");
        assert!(error.is_existing(), "{error}");
        let listed = nft.elements(Family::Inet, "berth_test", "pods").expect("list");
        assert_eq!((listed.len(), &*listed[0].key), (1, &[10, 0, 0, 3][..]));
        assert_eq!(listed[0].chain.as_deref(), Some("a"));
        assert_eq!(listed[0].comment.as_deref(), Some("net c1 eth0"));
        assert_eq!(nft.chains(Family::Inet, "berth_test").expect("list"), ["a"]);
        let error = nft.apply(&batch(vec![Step::DeleteChain("a".to_owned())])).expect_err("an element jumps there");
        assert_eq!(error.errno(), Some(16), "{error}");
        let delete = Step::DeleteElements { set: "pods".to_owned(), keys: vec![vec![10, 0, 0, 3]] };
        nft.apply(&batch(vec![delete, Step::DeleteChain("a".to_owned())])).expect("delete");
        assert!(nft.elements(Family::Inet, "berth_test", "pods").expect("list").is_empty());
        assert!(nft.elements(Family::Inet, "nowhere", "pods").expect("no such table").is_empty());
    });
}

#[test]
fn a_decision_is_taken_again_when_the_rules_changed_meanwhile() {
    in_fresh(|| {
        let mut nft = Nft::open().expect("socket");
        let mut others = Nft::open().expect("socket");
        let mut looked = 0;
        let made = nft.decide(|_| {
            looked += 1;
            if looked == 1 {
                others.apply(&batch(vec![Step::AddTable { exclusive: true }])).expect("somebody else's change");
            }
            Ok((Some(batch(vec![Step::DeleteTable])), looked))
        });
        assert_eq!(made.expect("decided"), 2);
        assert!(!nft.has_table(Family::Inet, "berth_test").expect("ask"));
        let nothing = nft.decide(|_| Ok((None, 7))).expect("nothing to do");
        assert_eq!(nothing, 7);
    });
}
