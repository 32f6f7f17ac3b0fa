//! The sessions that were asked for and whose client has not come yet.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use tokio::time::Instant;

use super::Full;

/// `k8s.io/cri-streaming@v0.37.2:pkg/streaming/request_cache.go`.
const LIFE: Duration = Duration::from_secs(60);
const MOST: usize = 1000;
/// Eight characters of base64.
const BYTES: usize = 6;

/// Things by a token that is good once, for a minute.
#[derive(Debug)]
pub(super) struct Tokens<T>(HashMap<String, (Instant, T)>);

impl<T> Tokens<T> {
    pub(super) fn new() -> Tokens<T> {
        Tokens(HashMap::new())
    }

    pub(super) fn insert(&mut self, thing: T) -> Result<String, Full> {
        if self.0.len() >= MOST {
            let now = Instant::now();
            self.0.retain(|_, (until, _)| *until > now);
        }
        if self.0.len() >= MOST {
            return Err(Full);
        }
        loop {
            let mut bytes = [0; BYTES];
            // It fails only where the system's own source of randomness does: then nothing is safe to hand out.
            rand::fill(&mut bytes).map_err(|_| Full)?;
            let token = URL_SAFE.encode(bytes);
            if !self.0.contains_key(&token) {
                self.0.insert(token.clone(), (Instant::now() + LIFE, thing));
                return Ok(token);
            }
        }
    }

    pub(super) fn take(&mut self, token: &str) -> Option<T> {
        let (until, thing) = self.0.remove(token)?;
        (until > Instant::now()).then_some(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_a_minute() {
        let mut tokens = Tokens::new();
        let (first, second) = (tokens.insert(1).expect("room"), tokens.insert(2).expect("room"));
        assert_ne!(first, second);
        assert_eq!((first.len(), second.len()), (8, 8));
        assert_eq!(tokens.take(&first), Some(1));
        assert_eq!(tokens.take(&first), None);
        assert_eq!(tokens.take("AAAAAAAA"), None);
        tokio::time::advance(LIFE).await;
        assert_eq!(tokens.take(&second), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_wait_and_no_more_until_they_are_old() {
        let mut tokens = Tokens::new();
        for number in 0..MOST {
            tokens.insert(number).expect("room");
        }
        assert_eq!(tokens.insert(MOST), Err(Full));
        tokio::time::advance(LIFE).await;
        tokens.insert(MOST).expect("the old ones are gone");
        assert_eq!(tokens.0.len(), 1);
    }
}
