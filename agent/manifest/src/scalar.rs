//! What a plain scalar means: YAML 1.1 as sigs.k8s.io/yaml 1.6 reads it (`go.yaml.in/yaml/v2:resolve.go`).
//!
//! Where that reader differs from the YAML 1.1 specification it is followed, not the specification: `y` and `n` are
//! booleans, `08` is the float 8, `1:30` is text, `0o17` is an octal number, and a date is text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Number;

/// A resolved scalar, still able to tell integers from floats (map keys need it).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer above `i64::MAX`.
    Large(u64),
    Float(f64),
    Text(String),
}

/// The tag of the core schema that a scalar carries, without its prefix (`str`, `int`, …), or any other tag whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag<'a> {
    None,
    Core(&'a str),
    Foreign,
}

/// Resolves a scalar. `plain` is false for quoted and block scalars, which are text unless a tag says otherwise.
pub(crate) fn resolve(text: &str, plain: bool, tag: Tag<'_>) -> Result<Scalar, String> {
    match tag {
        Tag::None if plain => Ok(implicit(text, true)),
        Tag::None | Tag::Foreign | Tag::Core("str") => Ok(Scalar::Text(text.to_owned())),
        Tag::Core("binary") => {
            let bytes = STANDARD
                .decode(text.replace(['\n', '\r'], ""))
                .map_err(|_| "!!binary value contains invalid base64 data")?;
            Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Tag::Core(kind @ ("bool" | "int" | "float" | "null" | "timestamp")) => {
            let scalar = implicit(text, kind == "timestamp");
            let found = match &scalar {
                Scalar::Null => "null",
                Scalar::Bool(_) => "bool",
                Scalar::Int(_) | Scalar::Large(_) => "int",
                Scalar::Float(_) => "float",
                Scalar::Text(_) if kind == "timestamp" && is_timestamp(text) => "timestamp",
                Scalar::Text(_) => "str",
            };
            match (kind, scalar) {
                #[expect(clippy::cast_precision_loss, reason = "what !!float asks for")]
                ("float", Scalar::Int(number)) => Ok(Scalar::Float(number as f64)),
                (kind, scalar) if kind == found => Ok(scalar),
                _ => Err(format!("cannot decode !!{found} `{text}` as a !!{kind}")),
            }
        }
        Tag::Core(_) => Ok(Scalar::Text(text.to_owned())),
    }
}

impl Scalar {
    /// As a JSON number, or the reason why JSON can't say it.
    pub(crate) fn number(&self) -> Option<Result<Number, String>> {
        match self {
            Self::Int(number) => Some(Ok((*number).into())),
            Self::Large(number) => Some(Ok((*number).into())),
            Self::Float(number) => Some(float(*number)),
            _ => None,
        }
    }

    /// As a map key.
    pub(crate) fn key(self) -> Result<String, &'static str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Bool(flag) => Ok(flag.to_string()),
            Self::Int(number) => Ok(number.to_string()),
            Self::Float(number) => Ok(short(number)),
            Self::Null => Err("a key must not be null"),
            Self::Large(_) => Err("a key must not be an integer above 2^63"),
        }
    }
}

/// A float as JSON writes it: whole numbers without a fraction, so that they still serve as integers.
fn float(number: f64) -> Result<Number, String> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        return Ok((number as i64).into());
    }
    // Beyond that, Go still prints all digits below 1e21; they fit where the shortest form is such an integer.
    if number.fract() == 0.0
        && number.abs() < 1e21
        && let Ok(whole) = format!("{number:.0}").parse::<i128>()
    {
        if let Ok(whole) = i64::try_from(whole) {
            return Ok(whole.into());
        }
        if let Ok(whole) = u64::try_from(whole) {
            return Ok(whole.into());
        }
    }
    Number::from_f64(number).ok_or_else(|| format!("{number} can't be said in JSON"))
}

/// A float as a key: Go's `strconv.FormatFloat(f, 'g', -1, 32)`.
#[expect(clippy::cast_possible_truncation, reason = "32 bits are what the reference keeps")]
fn short(number: f64) -> String {
    let number = number as f32;
    if number.is_nan() {
        return ".nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn implicit(text: &str, timestamps: bool) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => decimal_float(text),
        b'0'..=b'9' | b'+' | b'-' if timestamps && is_timestamp(text) => None,
        b'0'..=b'9' | b'+' | b'-' => number(&text.replace('_', "")),
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Scalar> {
    integer(text).or_else(|| is_float(text).then(|| decimal_float(text)).flatten())
}

/// Go's `strconv.ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    if let Ok(number) = i64::try_from(if negative { -magnitude } else { magnitude }) {
        return Some(Scalar::Int(number));
    }
    // ParseUint takes no sign.
    let signed = text.starts_with(['+', '-']);
    u64::try_from(magnitude).ok().filter(|_| !signed).map(Scalar::Large)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && all_digits(fraction),
        Some((whole, fraction)) => all_digits(whole) && all_digits(fraction),
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    mantissa_fits && exponent_fits
}

fn decimal_float(text: &str) -> Option<Scalar> {
    // Go refuses what overflows; then the scalar is text.
    text.parse::<f64>().ok().filter(|number| number.is_finite() && is_float(text)).map(Scalar::Float)
}

/// Dates and times are text to us; they matter because `2001-01-01` must not be tried as a number.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() > 5 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_go_yaml_says() {
        let cases = [
            ("0644", Scalar::Int(420)),
            ("0o644", Scalar::Int(420)),
            ("0x1F", Scalar::Int(31)),
            ("0b101", Scalar::Int(5)),
            ("-0b101", Scalar::Int(-5)),
            ("1_000", Scalar::Int(1000)),
            ("+12", Scalar::Int(12)),
            ("9223372036854775808", Scalar::Large(9_223_372_036_854_775_808)),
            ("-9223372036854775809", Scalar::Float(-9_223_372_036_854_775_809.0)),
            ("08", Scalar::Float(8.0)),
            ("1e3", Scalar::Float(1000.0)),
            (".5", Scalar::Float(0.5)),
            ("1.", Scalar::Float(1.0)),
            ("y", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("~", Scalar::Null),
        ];
        for (text, expected) in cases {
            assert_eq!(resolve(text, true, Tag::None), Ok(expected), "{text}");
        }
        for text in [
            "1:30",
            "2001-12-14",
            "0x",
            "1e",
            "yEs",
            "tRue",
            "nUll",
            "1.2.3",
            "+",
            "-",
            "1__",
            "..",
            ".x",
            "1e999",
            "1Gi",
        ] {
            let resolved = resolve(text, true, Tag::None).expect("a scalar");
            if text == "1__" {
                assert_eq!(resolved, Scalar::Int(1));
            } else {
                assert_eq!(resolved, Scalar::Text(text.to_owned()), "{text}");
            }
        }
        assert_eq!(resolve("yes", false, Tag::None), Ok(Scalar::Text("yes".to_owned())));
        assert_eq!(resolve("12", false, Tag::Core("int")), Ok(Scalar::Int(12)));
        assert_eq!(resolve("12", true, Tag::Core("str")), Ok(Scalar::Text("12".to_owned())));
        assert!(resolve("x", true, Tag::Core("int")).is_err());
    }

    #[test]
    fn floats_become_keys_as_go_prints_them() {
        for (number, text) in
            [(1.5, "1.5"), (1e21, "1e+21"), (0.0001, "0.0001"), (0.00001, "1e-05"), (1_000_000.0, "1000000")]
        {
            assert_eq!(short(number), text);
        }
    }
}
