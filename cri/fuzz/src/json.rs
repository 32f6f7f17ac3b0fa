//! Changes to JSON.

use serde_json::{Map, Number, Value, json};

use crate::{Script, text};

/// No document grows past so many values.
const LARGEST: usize = 4000;

pub(crate) fn mutant(documents: &[Value], script: &mut Script<'_>) -> Value {
    let mut document = script.pick(documents).clone();
    for _ in 0..script.changes() {
        if size(&document) < LARGEST {
            change(&mut document, documents, script);
        }
    }
    document
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// Walks down some way, then changes what is there.
fn change(value: &mut Value, documents: &[Value], script: &mut Script<'_>) {
    let deeper = !script.byte().is_multiple_of(4);
    match value {
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = script.below(list.len());
            change(&mut list[at], documents, script);
        }
        Value::Object(map) if deeper && !map.is_empty() => {
            let at = script.below(map.len());
            if let Some((_, inner)) = map.iter_mut().nth(at) {
                change(inner, documents, script);
            }
        }
        Value::Array(list) => change_list(list, documents, script),
        Value::Object(map) => change_map(map, documents, script),
        scalar => change_scalar(scalar, documents, script),
    }
}

fn change_list(list: &mut Vec<Value>, documents: &[Value], script: &mut Script<'_>) {
    let at = script.below(list.len() + 1);
    match script.below(5) {
        0 if at < list.len() => drop(list.remove(at)),
        1 if at < list.len() => {
            let copy = list[at].clone();
            let times = 1 << script.below(8);
            list.extend(std::iter::repeat_n(copy, times));
        }
        2 if at < list.len() => {
            let other = script.below(list.len());
            list.swap(at, other);
        }
        3 => list.clear(),
        _ => list.insert(at, part(documents, script)),
    }
}

fn change_map(map: &mut Map<String, Value>, documents: &[Value], script: &mut Script<'_>) {
    let key = |map: &Map<String, Value>, script: &mut Script<'_>| map.keys().nth(script.below(map.len())).cloned();
    match script.below(4) {
        0 => drop(key(map, script).map(|key| map.remove(&key))),
        // A value under the name of another, here or in any document.
        1 => {
            if let (Some(from), Some(to)) = (key(map, script), key(map, script)) {
                let value = map[&from].clone();
                map.insert(to, value);
            }
        }
        2 => {
            let mut keys = Vec::new();
            documents.iter().for_each(|document| names(document, &mut keys));
            if !keys.is_empty() {
                let name = (*script.pick(&keys)).to_owned();
                map.insert(name, part(documents, script));
            }
        }
        _ => {
            if let Some(key) = key(map, script)
                && let Some(value) = map.get_mut(&key)
            {
                *value = part(documents, script);
            }
        }
    }
}

fn change_scalar(value: &mut Value, documents: &[Value], script: &mut Script<'_>) {
    match (script.below(4), &mut *value) {
        (0, _) => *value = part(documents, script),
        (_, Value::String(text)) => *text = text::change(text, script),
        (1, Value::Number(number)) => *value = json!(number.as_i64().unwrap_or(0).wrapping_add(1)),
        (2, Value::Number(number)) => *value = json!(number.as_i64().unwrap_or(0).wrapping_neg()),
        _ => *value = scalar(script),
    }
}

/// A value from anywhere in the documents, or a strange one.
fn part(documents: &[Value], script: &mut Script<'_>) -> Value {
    if script.below(3) == 0 {
        return scalar(script);
    }
    let mut value = script.pick(documents);
    loop {
        let inner = match value {
            Value::Array(list) if !list.is_empty() => &list[script.below(list.len())],
            Value::Object(map) if !map.is_empty() => {
                let at = script.below(map.len());
                map.values().nth(at).unwrap_or(value)
            }
            scalar => return scalar.clone(),
        };
        if script.byte().is_multiple_of(4) {
            return inner.clone();
        }
        value = inner;
    }
}

fn scalar(script: &mut Script<'_>) -> Value {
    match script.below(14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(-1),
        5 => json!(u32::MAX),
        6 => json!(1_u64 << 32),
        7 => json!(i64::MIN),
        8 => json!(u64::MAX),
        9 => Number::from_f64(1e300).map_or(Value::Null, Value::Number),
        10 => json!([]),
        11 => json!({}),
        12 => json!(script.byte()),
        _ => json!(text::word(script)),
    }
}

/// All names of fields in a document.
fn names<'a>(value: &'a Value, keys: &mut Vec<&'a str>) {
    match value {
        Value::Array(list) => list.iter().for_each(|inner| names(inner, keys)),
        Value::Object(map) => {
            for (key, inner) in map {
                keys.push(key);
                names(inner, keys);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_change_documents_and_mean_the_same_each_time() {
        let documents = [json!({"a": [1, {"b": "text"}], "c": null}), json!(["x", 7])];
        assert_eq!(mutant(&documents, &mut Script::new(&[])), documents[0]);
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..5000_u32 {
            let byte = |at| seed.wrapping_mul(2_654_435_761).rotate_left(at).to_be_bytes()[0];
            let script: Vec<u8> = (0..24).map(byte).collect();
            let made = mutant(&documents, &mut Script::new(&script)).to_string();
            assert_eq!(made, mutant(&documents, &mut Script::new(&script)).to_string());
            found.insert(made);
        }
        assert!(found.len() > 1000, "{} mutants", found.len());
    }
}
