//! How old a bound token is. The token itself says so: a JWT carries when it was issued and when it ends, so that a
//! restarted agent need not ask for new ones, nor keep books.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// However long it lives, a token is renewed after a day, less up to [`JITTER`]
/// (`kubernetes@v1.37.2:pkg/kubelet/token#maxTTL`).
const LONGEST: Duration = Duration::from_hours(24);
/// Spreads the renewals of pods that started together.
const JITTER: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Claims {
    exp: u64,
    iat: Option<u64>,
}

/// When `token` is to be renewed: at 80 % of its life. `None` when it can't be read as a JWT.
pub(crate) fn renew_at(token: &str) -> Option<SystemTime> {
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let issued = claims.iat.filter(|issued| *issued < claims.exp)?;
    let life = Duration::from_secs(claims.exp - issued);
    let jitter = JITTER.min(life / 20).mul_f64(spread(token));
    let after = (life * 4 / 5).min(LONGEST) - jitter;
    UNIX_EPOCH.checked_add(Duration::from_secs(issued))?.checked_add(after)
}

/// A number in 0..1 that differs from token to token and stays with each.
fn spread(token: &str) -> f64 {
    let hash = token
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    f64::from(u32::try_from(hash >> 40).unwrap_or(0)) / f64::from(1_u32 << 24)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An unsigned token; nothing here checks signatures.
    pub(crate) fn token(issued: u64, expires: u64) -> String {
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"iat\":{issued},\"exp\":{expires},\"sub\":\"x\"}}"));
        format!("e30.{claims}.c2ln")
    }

    fn seconds(at: SystemTime) -> u64 {
        at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    }

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life() {
        let at = seconds(renew_at(&token(1000, 4600)).expect("a time"));
        assert!((3870..=3880).contains(&at), "{at}");
    }

    #[test]
    fn a_long_lived_token_is_renewed_daily() {
        let at = seconds(renew_at(&token(0, 31_536_000)).expect("a time"));
        assert!((86_390..=86_400).contains(&at), "{at}");
    }

    #[test]
    fn what_is_no_token_has_no_time() {
        for text in ["", "a", "a.b", "a.b.c", &token(10, 10), &token(10, 5)] {
            assert_eq!(renew_at(text), None, "{text}");
        }
    }
}
