//! Changes to text.

use crate::Script;

/// No text grows past so many bytes.
const LARGEST: usize = 64 << 10;

/// Words that something somewhere treats differently.
const WORDS: [&str; 30] = [
    "",
    " ",
    "\n",
    "\0",
    ":",
    "=",
    ",",
    "-",
    "/",
    "..",
    "/../..",
    "/proc/self/fd/7",
    "0",
    "-1",
    "+1",
    "max",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854771712",
    "9999999999999999999999999999999999999999",
    "0.1",
    "1e400",
    "nan",
    "\\040",
    "\u{fffd}",
    "\u{202e}",
    "ŵ",
];

pub(crate) fn mutant(documents: &[String], script: &mut Script<'_>) -> String {
    let mut text = script.pick(documents).clone();
    for _ in 0..script.changes() {
        if text.len() < LARGEST {
            text = change(&text, script);
        }
    }
    text
}

pub(crate) fn word(script: &mut Script<'_>) -> String {
    match script.below(WORDS.len() + 2) {
        at if at < WORDS.len() => WORDS[at].to_owned(),
        at => "x".repeat([300, 5000][at - WORDS.len()]),
    }
}

/// One change: of a piece, which is a line, a word of one, or a character.
pub(crate) fn change(text: &str, script: &mut Script<'_>) -> String {
    let mut pieces: Vec<&str> = match script.below(3) {
        0 => text.split_inclusive('\n').collect(),
        1 => text.split_inclusive([' ', ':', '=', ',', '/', '.', '\n']).collect(),
        _ => text.split_inclusive(|_: char| true).collect(),
    };
    let at = script.below(pieces.len() + 1);
    let word = word(script);
    match script.below(6) {
        0 => pieces.truncate(at),
        1 if at < pieces.len() => drop(pieces.remove(at)),
        2 if at < pieces.len() => {
            let times = 1 << script.below(6);
            pieces.splice(at..at, std::iter::repeat_n(pieces[at], times).collect::<Vec<_>>());
        }
        3 if at < pieces.len() => {
            let other = script.below(pieces.len());
            pieces.swap(at, other);
        }
        4 if at < pieces.len() => pieces[at] = &word,
        _ => pieces.insert(at, &word),
    }
    pieces.concat()
}
