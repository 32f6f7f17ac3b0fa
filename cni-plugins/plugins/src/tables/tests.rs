use super::*;

const TABLE: Table =
    Table { family: Family::Inet, name: "t", sets: &["pods"], setup: |_| vec![Command::AddTable { exclusive: false }] };

fn held(key: u8, chain: &str, comment: &str) -> Held {
    let listed =
        Listed { key: vec![key], value: None, chain: Some(chain.to_owned()), comment: Some(comment.to_owned()) };
    Held { set: "pods", listed }
}

fn joining(key: u8, chain: &str) -> Joining {
    Joining {
        set: "pods",
        element: Element { key: vec![key], data: Some(Data::Verdict(Verdict::Jump(chain.to_owned()))), comment: None },
        chain: vec![Command::FlushChain(chain.to_owned())],
    }
}

fn plan(held: &[Held], leaving: &str, joining: &[Joining]) -> Option<Vec<String>> {
    let batch = TABLE.plan(held, |held| held.comment() == leaving, joining)?;
    let shown = batch.commands.iter().map(|command| match command {
        Command::AddTable { .. } => "setup".to_owned(),
        Command::DeleteTable => "-table".to_owned(),
        Command::FlushChain(chain) => format!("+{chain}"),
        Command::DeleteChain(chain) => format!("-{chain}"),
        Command::DeleteElements { keys, .. } => format!("-{keys:?}"),
        Command::AddElements { elements, .. } => {
            format!("+{:?}", elements.iter().map(|element| element.key.clone()).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    });
    Some(shown.collect())
}

#[test]
fn a_table_comes_with_its_first_element_and_goes_with_its_last() {
    assert_eq!(plan(&[], "x", &[joining(1, "a")]).expect("a batch"), ["setup", "+a", "+[[1]]"]);
    assert_eq!(plan(&[held(1, "a", "x")], "x", &[]).expect("a batch"), ["-table"]);
    assert_eq!(plan(&[], "x", &[]), None);
    assert_eq!(plan(&[held(1, "a", "y")], "x", &[]), None);
}

#[test]
fn a_chain_comes_and_goes_with_what_leads_to_it() {
    let both = [held(1, "a", "x"), held(2, "b", "y")];
    assert_eq!(plan(&both, "x", &[]).expect("a batch"), ["-[[1]]", "-a"]);
    assert_eq!(plan(&both, "x", &[joining(3, "a")]).expect("a batch"), ["-[[1]]", "+[[3]]"]);
    assert_eq!(plan(&both, "none", &[joining(3, "b")]).expect("a batch"), ["+[[3]]"]);
    let twice = [joining(3, "c"), joining(4, "c")];
    assert_eq!(plan(&both, "none", &twice).expect("a batch"), ["+c", "+[[3], [4]]"]);
}

#[test]
fn whoever_holds_a_key_that_is_wanted_leaves() {
    let stale = [held(1, "a", "somebody"), held(2, "a", "y")];
    assert_eq!(plan(&stale, "x", &[joining(1, "b")]).expect("a batch"), ["-[[1]]", "+b", "+[[1]]"]);
}
