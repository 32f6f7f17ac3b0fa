//! WWW-Authenticate (RFC 9110, 11.6.1): what a registry wants to see.

use std::collections::HashMap;

use http::header::HeaderValue;

/// A scheme and its parameters, names in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: HashMap<String, String>,
}

impl Challenge {
    pub(super) fn is(&self, scheme: &str) -> bool {
        self.scheme == scheme
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// All challenges of all headers; what is malformed ends its header's list.
pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a HeaderValue>) -> Vec<Challenge> {
    headers.into_iter().filter_map(|value| value.to_str().ok()).flat_map(one).collect()
}

fn one(mut text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        let end = text.find([' ', '\t', ',', '=']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        if word.is_empty() {
            return challenges;
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        match (rest.strip_prefix('='), challenges.last_mut()) {
            (Some(rest), Some(challenge)) => {
                let Some((value, rest)) = value(rest.trim_start_matches([' ', '\t'])) else { return challenges };
                challenge.parameters.insert(word.to_ascii_lowercase(), value);
                text = rest;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: HashMap::new() });
                text = rest;
            }
        }
    }
}

/// A token or quoted string, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(headers: &[&str]) -> Vec<Challenge> {
        let values: Vec<HeaderValue> = headers.iter().map(|text| text.parse().expect("header")).collect();
        parse(&values)
    }

    #[test]
    fn challenges_are_found_wherever_they_stand() {
        let list = parsed(&[
            r#"Bearer realm="https://auth.example/token",service="r",scope="repository:a/b:pull,push""#,
            r#"Negotiate, Basic realm="with \"quotes\", and comma" , charset=UTF-8"#,
        ]);
        assert_eq!(list.len(), 3);
        assert!(list[0].is("bearer") && list[0].get("scope") == Some("repository:a/b:pull,push"));
        assert!(list[1].is("negotiate"));
        assert_eq!(list[2].get("realm"), Some("with \"quotes\", and comma"));
        assert_eq!(list[2].get("charset"), Some("UTF-8"));
    }

    #[test]
    fn nonsense_ends_without_a_panic() {
        for text in ["", "=", ",,,", "Bearer realm=\"open", "realm=x", "Bearer realm=", "Basic =\"\\"] {
            parsed(&[text]);
        }
    }
}
