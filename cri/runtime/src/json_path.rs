//! The path of the value at some place of a JSON text, `process.rlimits[1].type`: what a reader of configurations
//! understands, and what a parser does not tell.

/// Where a value is: in an object by its key, in an array by its place.
#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// The path at a line and a column, both from 1, as serde_json counts them (in bytes). What is missing is
/// missed at its object's end, which has that object's own path.
pub(crate) fn at(text: &[u8], line: usize, column: usize) -> String {
    let before: usize = text.split(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(|line| line.len() + 1).sum();
    let end = before.saturating_add(column).min(text.len());
    let steps = walk(&text[..end]);
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if path.is_empty() => path = key,
            Step::Key(key) => path = format!("{path}.{key}"),
            Step::Index(index) => path = format!("{path}[{index}]"),
        }
    }
    path
}

/// The steps to where the text ends.
fn walk(text: &[u8]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    // The last string, until it is known whether it was a key.
    let mut last = String::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' => steps.push(Step::Key(String::new())),
            b'[' => steps.push(Step::Index(0)),
            b'}' | b']' => drop(steps.pop()),
            b':' => {
                if let Some(Step::Key(key)) = steps.last_mut() {
                    *key = std::mem::take(&mut last);
                }
            }
            b',' => {
                if let Some(Step::Index(index)) = steps.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                let length = string_length(&text[at..]);
                last = String::from_utf8_lossy(&text[at..at + length]).into_owned();
                at += length + 1;
            }
            _ => {}
        }
    }
    steps
}

/// The length of a string's inside.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::at;

    #[test]
    fn values_have_paths() {
        let text = br#"{"a":{"b":[1,{"c\"}":"x,y"},[2,3]]},"d":4}"#;
        let path = |marker: &str| {
            let place = String::from_utf8_lossy(text).find(marker).expect("there") + marker.len();
            at(text, 1, place)
        };
        assert_eq!(path("[1"), "a.b[0]");
        assert_eq!(path("\"x,y"), "a.b[1].c\\\"}");
        assert_eq!(path("[2,3"), "a.b[2][1]");
        assert_eq!(path("\"d\":4"), "d");
        assert_eq!(at(b"{\n\"a\":\n7}", 3, 1), "a");
        assert_eq!(at(b"{\"a\":{\"b\":1}", 1, 14), "a");
    }
}
