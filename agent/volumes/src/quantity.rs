//! Kubernetes quantities ("1.5Gi", "250m", "1e3") in thousandths, rounded up as the API does.

/// Thousandths of the unit; `None` when `text` is no quantity or lies outside 2^63 units.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() + fraction.len() > 36 {
        return None;
    }
    if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut value: i128 = format!("{whole}{fraction}").parse().ok()?;
    // value * 10^power * 2^shift is the magnitude in thousandths.
    let (mut power, shift) = scale(suffix)?;
    power += 3 - i32::try_from(fraction.len()).ok()?;
    value = value.checked_mul(1_i128.checked_shl(shift)?)?;
    while power > 0 {
        value = value.checked_mul(10)?;
        power -= 1;
    }
    if power < 0 {
        let divisor = 10_i128.checked_pow(power.unsigned_abs())?;
        value = value / divisor + i128::from(value % divisor != 0);
    }
    (value <= i128::from(i64::MAX) * 1000).then_some(if negative { -value } else { value })
}

/// Whole units, rounded up.
pub(crate) fn value(text: &str) -> Option<i64> {
    let milli = milli(text)?;
    i64::try_from(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0)).ok()
}

/// A suffix as (power of ten, power of two).
fn scale(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            (-30..=30).contains(&power).then_some((power, 0))?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_mean_what_the_api_says() {
        let cases = [
            ("1", Some(1000)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("250m", Some(250)),
            ("1Ki", Some(1_024_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1e3", Some(1_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000)),
            ("100n", Some(1)),
            ("-2", Some(-2000)),
            ("", None),
            ("Mi", None),
            ("1MiB", None),
            ("1..2", None),
            ("--1", None),
            ("99Ei", None),
        ];
        for (text, expected) in cases {
            assert_eq!(milli(text), expected, "{text:?}");
        }
        assert_eq!(value("1001m"), Some(2));
        assert_eq!(value("64Mi"), Some(67_108_864));
    }
}
