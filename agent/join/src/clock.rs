//! Whether this machine's clock can be right.
//!
//! A clock that is off makes certificates look expired or not yet valid, and says so only by a failed handshake somewhere
//! later. So the API server's Date header is compared first, then the validity of its certificates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::JoinError;

/// The control plane dates certificates back by so much (`kubernetes@v1.37.2:pkg/controller/certificates/signer`), which
/// is how far a node's clock may be behind.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub begins: Timestamp,
    /// Last moment.
    pub ends: Timestamp,
}

impl Validity {
    /// As in the certificate; `None` when it can't be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let time = |seconds| Timestamp::from_second(seconds).ok();
        let validity = parsed.validity();
        Some(Self { begins: time(validity.not_before.timestamp())?, ends: time(validity.not_after.timestamp())? })
    }
}

/// The present by this machine's clock.
pub fn now() -> Timestamp {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The Date header's time (RFC 9110, 5.6.7).
pub fn date(header: &str) -> Option<Timestamp> {
    k8s_openapi::jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()
}

/// Judges the local clock by what an answer said: its Date header, and the validity of the API server's certificate.
///
/// # Errors
/// [`JoinError::Clock`] when the clock is off, [`JoinError::ServerCertificate`] when the clock is right and the API
/// server's certificate is not.
pub fn judge(local: Timestamp, date: Option<Timestamp>, server: Option<Validity>) -> Result<(), JoinError> {
    let distance = |other: Timestamp| Duration::from_secs(local.as_second().abs_diff(other.as_second()));
    if let Some(theirs) = date.filter(|theirs| distance(*theirs) > TOLERANCE) {
        let side = if local < theirs { "behind" } else { "ahead of" };
        return Err(JoinError::Clock { local, by: show(distance(theirs)), side, evidence: "the API server's clock" });
    }
    let Some(server) = server else { return Ok(()) };
    let invalid = if local < server.begins {
        ("begins only at", server.begins, "behind")
    } else if local > server.ends {
        ("has ended at", server.ends, "ahead of")
    } else {
        return Ok(());
    };
    let (verb, at, side) = invalid;
    match date {
        // Both clocks agree, so that it is the certificate that is wrong.
        Some(_) => Err(JoinError::ServerCertificate { verb, at }),
        None => Err(JoinError::Clock {
            local,
            by: show(distance(at)),
            side,
            evidence: "the validity of the API server's certificate",
        }),
    }
}

/// About how long, as people say it.
pub fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    fn valid(begins: i64, ends: i64) -> Option<Validity> {
        Some(Validity { begins: at(begins), ends: at(ends) })
    }

    fn said(date: Option<i64>, server: Option<Validity>) -> Option<String> {
        judge(at(0), date.map(at), server).err().map(|error| error.to_string())
    }

    #[test]
    fn clocks_that_agree_pass() {
        assert_eq!(said(Some(0), valid(-DAY, DAY)), None);
        assert_eq!(said(Some(300), valid(-DAY, DAY)), None);
        assert_eq!(said(Some(-300), None), None);
        assert_eq!(said(None, None), None);
        assert_eq!(said(None, valid(0, 0)), None);
    }

    #[test]
    fn a_clock_that_is_off_by_a_day_is_told_which_way() {
        let behind = said(Some(DAY), valid(-DAY, 9 * DAY)).expect("refused");
        assert!(behind.contains("24 hours behind the API server's clock"), "{behind}");
        let ahead = said(Some(-3 * DAY), None).expect("refused");
        assert!(ahead.contains("3 days ahead of the API server's clock"), "{ahead}");
        assert!(said(Some(301), None).expect("refused").contains("5 minutes behind"));
    }

    #[test]
    fn without_a_date_the_certificate_tells() {
        let behind = said(None, valid(DAY, 9 * DAY)).expect("refused");
        assert!(behind.contains("24 hours behind the validity of the API server's certificate"), "{behind}");
        assert!(said(None, valid(-9 * DAY, -DAY)).expect("refused").contains("24 hours ahead of"));
    }

    #[test]
    fn with_a_right_clock_it_is_the_server_s_certificate() {
        let error = said(Some(1), valid(-9 * DAY, -DAY)).expect("refused");
        assert!(error.contains("has ended at") && error.contains("kubeadm certs renew"), "{error}");
    }

    #[test]
    fn dates_are_those_of_http() {
        let date = date("Tue, 24 Nov 2026 08:35:37 GMT").expect("a date");
        assert_eq!(date.to_string(), "2026-11-24T08:35:37Z");
        assert_eq!(super::date("yesterday"), None);
    }
}
