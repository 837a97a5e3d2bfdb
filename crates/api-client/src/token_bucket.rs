//! Token bucket rate limit.

use std::time::Duration;

use tokio::time::Instant;

/// A rate limit with bursts: `capacity` actions at once, and one more each `interval`.
#[derive(Debug)]
pub struct TokenBucket {
    capacity: u32,
    interval: Duration,
    tokens: u32,
    /// When the last token was added, or the time of the last action while the bucket was full.
    since: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub fn new(capacity: u32, interval: Duration) -> TokenBucket {
        TokenBucket { capacity, interval, tokens: capacity, since: Instant::now() }
    }

    /// Takes a token. Returns `false` if there is none.
    pub fn try_take(&mut self) -> bool {
        while self.tokens < self.capacity && self.since.elapsed() >= self.interval {
            self.tokens += 1;
            self.since += self.interval;
        }
        if self.tokens == self.capacity {
            self.since = Instant::now();
        }
        let is_left = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_one_each_interval() {
        let mut bucket = TokenBucket::new(3, Duration::from_secs(10));
        assert_eq!([(); 4].map(|()| bucket.try_take()), [true, true, true, false]);
        tokio::time::advance(Duration::from_secs(19)).await;
        assert_eq!([(); 2].map(|()| bucket.try_take()), [true, false]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(bucket.try_take());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!([(); 4].map(|()| bucket.try_take()), [true, true, true, false]);
    }
}
