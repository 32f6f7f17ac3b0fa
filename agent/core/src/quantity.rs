//! Kubernetes quantities (`100m`, `64Mi`, `1e3`) as integers.
//!
//! Source: the format in `k8s.io/apimachinery/pkg/api/resource/quantity.go`. Values round up, as `Value()` and
//! `MilliValue()` do, and saturate at the ends of `i64`.

/// In thousandths of the unit; `None` when `text` is no quantity.
pub fn milli(text: &str) -> Option<i64> {
    scaled(text, 3)
}

/// In whole units; `None` when `text` is no quantity.
pub fn value(text: &str) -> Option<i64> {
    scaled(text, 0)
}

/// `text` times 10^`places`, rounded away from zero.
fn scaled(text: &str, places: i32) -> Option<i64> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 64 {
        return None;
    }
    let (binary, decimal) = multiplier(suffix)?;
    let mut mantissa: u128 = 0;
    let mut overflow = false;
    for digit in whole.bytes().chain(fraction.bytes()) {
        match mantissa.checked_mul(10).and_then(|m| m.checked_add(u128::from(digit - b'0'))) {
            Some(next) => mantissa = next,
            None => overflow = true,
        }
    }
    let exponent = decimal + places - i32::try_from(fraction.len()).ok()?;
    let magnitude = if overflow { i64::MAX } else { apply(mantissa, binary, exponent) };
    Some(if negative { -magnitude } else { magnitude })
}

/// `mantissa * 2^binary * 10^exponent`, rounded up and capped.
fn apply(mantissa: u128, binary: u32, exponent: i32) -> i64 {
    let power = |n: u32| 10u128.checked_pow(n);
    let scaled = mantissa.checked_mul(1u128 << binary);
    let cap = u128::from(i64::MAX.unsigned_abs());
    if mantissa == 0 {
        return 0;
    }
    let result = if exponent >= 0 {
        scaled.zip(power(exponent.unsigned_abs())).and_then(|(a, b)| a.checked_mul(b)).unwrap_or(cap)
    } else {
        match (scaled, power(exponent.unsigned_abs())) {
            (Some(scaled), Some(divisor)) => scaled.div_ceil(divisor),
            // A divisor beyond 10^38 leaves less than one: rounded up.
            (Some(_), None) => 1,
            (None, _) => cap,
        }
    };
    i64::try_from(result.min(cap)).unwrap_or(i64::MAX)
}

/// (power of two, power of ten) of a suffix.
fn multiplier(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let parsed: i32 = exponent.parse().ok()?;
            (0, parsed.clamp(-200, 200))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let rows: &[(&str, Option<i64>, Option<i64>)] = &[
            ("0", Some(0), Some(0)),
            ("1", Some(1000), Some(1)),
            ("100m", Some(100), Some(1)),
            ("1.5", Some(1500), Some(2)),
            ("0.1m", Some(1), Some(1)),
            ("64Mi", Some(64 * 1024 * 1024 * 1000), Some(64 * 1024 * 1024)),
            ("1k", Some(1_000_000), Some(1000)),
            ("1e3", Some(1_000_000), Some(1000)),
            ("1E3", Some(1_000_000), Some(1000)),
            ("12e-3", Some(12), Some(1)),
            (".5", Some(500), Some(1)),
            ("5.", Some(5000), Some(5)),
            ("-1", Some(-1000), Some(-1)),
            ("+2", Some(2000), Some(2)),
            ("1Ei", Some(i64::MAX), Some(1 << 60)),
            ("100E", Some(i64::MAX), Some(i64::MAX)),
            ("1n", Some(1), Some(1)),
            ("", None, None),
            ("-", None, None),
            (".", None, None),
            ("1.2.3", None, None),
            ("1ki", None, None),
            ("1 Mi", None, None),
            ("abc", None, None),
        ];
        for (text, expected_milli, expected_value) in rows {
            assert_eq!(milli(text), *expected_milli, "milli of {text:?}");
            assert_eq!(value(text), *expected_value, "value of {text:?}");
        }
    }
}
