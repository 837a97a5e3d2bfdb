//! Detects that the peer is gone although the connection was not closed.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

/// The times of the keep-alive PINGs.
#[derive(Clone, Copy)]
pub(crate) struct KeepAlive {
    /// The time between two PINGs, whether or not there are streams.
    pub(crate) interval: Duration,
    /// The time without any byte from the peer after a PING, after which the connection is dead.
    pub(crate) timeout: Duration,
}

impl KeepAlive {
    /// Returns `true` when the connection is found dead, and `false` when it has ended in another
    /// way.
    ///
    /// `activity` is set whenever bytes arrive from the peer. On a slow connection the response to
    /// a PING may be queued behind other data, which also shows that the peer is alive.
    pub(crate) async fn is_silent(self, mut pings: PingPong, activity: &AtomicBool) -> bool {
        loop {
            sleep(self.interval).await;
            activity.store(false, Ordering::Relaxed);
            let mut answered = pin!(pings.ping(Ping::opaque()));
            loop {
                match timeout(self.timeout, &mut answered).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(_)) => return false,
                    Err(_) if activity.swap(false, Ordering::Relaxed) => {}
                    Err(_) => return true,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    const PING: u8 = 6;
    const LONG: Duration = Duration::from_secs(20);

    /// A client's connection to a server that responds to the first `answers` PINGs.
    async fn connected(answers: usize) -> (PingPong, Arc<AtomicUsize>, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let pinged = Arc::new(AtomicUsize::new(0));
        let server = tokio::spawn(serve(far, answers, Arc::clone(&pinged)));
        let (sender, mut connection) = h2::client::handshake(near).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        tokio::spawn(async move {
            let _sender: h2::client::SendRequest<Bytes> = sender;
            let _ = connection.await;
        });
        (pings, pinged, server)
    }

    async fn serve(mut stream: DuplexStream, answers: usize, pinged: Arc<AtomicUsize>) {
        stream.read_exact(&mut [0; 24]).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == PING && pinged.fetch_add(1, Ordering::SeqCst) < answers {
                stream.write_all(&[0, 0, 8, PING, 1, 0, 0, 0, 0]).await.unwrap();
                stream.write_all(&payload).await.unwrap();
            }
        }
    }

    fn keep_alive(interval: u64, timeout: u64) -> KeepAlive {
        let (interval, timeout) = (Duration::from_millis(interval), Duration::from_millis(timeout));
        KeepAlive { interval, timeout }
    }

    #[tokio::test]
    async fn an_idle_server_is_alive_while_it_responds_to_pings() {
        let (pings, pinged, _server) = connected(5).await;
        let activity = AtomicBool::new(false);
        let silent = timeout(LONG, keep_alive(1, 500).is_silent(pings, &activity)).await;
        assert!(silent.expect("it was not found silent"));
        assert_eq!(pinged.load(Ordering::SeqCst), 6);
    }

    #[tokio::test]
    async fn a_server_that_sends_other_frames_is_alive() {
        let (pings, _, _server) = connected(0).await;
        let activity = Arc::new(AtomicBool::new(false));
        let (begun, busy) = (Instant::now(), Duration::from_millis(600));
        let noise = Arc::clone(&activity);
        tokio::spawn(async move {
            while begun.elapsed() < busy {
                noise.store(true, Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(timeout(LONG, keep_alive(1, 200).is_silent(pings, &activity)).await.unwrap());
        assert!(begun.elapsed() >= busy, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn an_ended_connection_is_not_silent() {
        let (pings, _, server) = connected(usize::MAX).await;
        server.abort();
        let activity = AtomicBool::new(false);
        assert!(!timeout(LONG, keep_alive(1, 20_000).is_silent(pings, &activity)).await.unwrap());
    }
}
