//! The token server: from a Bearer challenge to an Authorization.
//! (<https://distribution.github.io/distribution/spec/auth/token/>)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};

use super::challenge::Challenge;
use super::host::Host;
use super::retry::Failure;
use crate::auth::Credential;
use crate::error::PullError;

const TOKEN_LIMIT: usize = 1 << 20;

pub(super) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    secret(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Asks the challenge's realm for a token: with a refresh token by OAuth2's POST, else by GET, with the password if
/// there is one, anonymously if not. None when there is no usable token in the answer.
pub(super) async fn fetch(
    host: &Host,
    challenge: &Challenge,
    credential: &Credential,
    what: &str,
    repository: &str,
) -> Result<Option<HeaderValue>, Failure> {
    let denied = |reason: &str| PullError::Unauthorized {
        what: what.to_owned(),
        detail: format!("{}: {reason}", host.authority()),
    };
    let realm = challenge.get("realm").unwrap_or_default();
    let uri: Uri = realm.parse().map_err(|_| denied("its token server is no address"))?;
    let secret = !matches!(credential, Credential::Anonymous);
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if !secret || host.is_plain() => {}
        Some("http") => return Err(denied("its token server would see the password in plain http").into()),
        _ => return Err(denied("its token server is no address").into()),
    }
    let scope = challenge.get("scope").map_or_else(|| format!("repository:{repository}:pull"), str::to_owned);
    let mut query = vec![("scope", scope.as_str())];
    if let Some(service) = challenge.get("service") {
        query.push(("service", service));
    }
    let request = if let Credential::RefreshToken(token) = credential {
        query.extend([("grant_type", "refresh_token"), ("client_id", "berth"), ("refresh_token", token.as_str())]);
        let form = Full::new(Bytes::from(form(&query)));
        let request = Request::builder().method(Method::POST).uri(uri);
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
    } else {
        let separator = if realm.contains('?') { '&' } else { '?' };
        let mut request = Request::builder().method(Method::GET).uri(format!("{realm}{separator}{}", form(&query)));
        if let Credential::Password { username, password } = credential
            && let Some(value) = basic(username, password)
        {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::default())
    };
    let request = request.map_err(|error| host.unreachable(what, &error))?;
    let response = host.send(request, what).await?;
    if response.status() != StatusCode::OK {
        return Err(host.failure(what, response).await);
    }
    let body = host.within(what, Limited::new(response.into_body(), TOKEN_LIMIT).collect()).await?;
    let body = body.map_err(|error| host.unreachable(what, error.as_ref()))?.to_bytes();
    Ok(token(&body).as_deref().and_then(bearer))
}

fn token(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.token.filter(|token| !token.is_empty()).or(answer.access_token).filter(|token| !token.is_empty())
}

/// `application/x-www-form-urlencoded`
fn form(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded_and_tokens_found() {
        assert_eq!(form(&[("scope", "repository:a/b:pull"), ("x", "ä")]), "scope=repository%3Aa%2Fb%3Apull&x=%C3%A4");
        assert_eq!(token(br#"{"token":"","access_token":"t"}"#), Some("t".into()));
        assert_eq!(token(b"{}"), None);
        assert_eq!(basic("joe", "pw").expect("value").to_str().expect("text"), "Basic am9lOnB3");
    }
}
