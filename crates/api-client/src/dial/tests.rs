use std::future::pending;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| address(text)).collect()
}

#[test]
fn families_alternate_in_the_order_of_the_resolver() {
    let resolved = addresses(&["[::1]:1", "[::2]:1", "[::1]:1", "1.0.0.1:1", "[::3]:1"]);
    let expected = addresses(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"]);
    assert_eq!(interleaved(resolved.into_iter()), expected);
    let resolved = addresses(&["1.0.0.1:1", "1.0.0.2:1", "[::1]:1"]);
    let expected = addresses(&["1.0.0.1:1", "[::1]:1", "1.0.0.2:1"]);
    assert_eq!(interleaved(resolved.into_iter()), expected);
}

/// Time is simulated: it passes only while all tasks wait.
#[tokio::test(start_paused = true)]
async fn a_silent_address_delays_the_next_by_250_ms_and_a_refused_one_not_at_all() {
    let all = addresses(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1", "1.0.0.4:1"]);
    let began = Instant::now();
    let deadline = began + Duration::from_secs(10);
    let attempt = |to: SocketAddr| async move {
        match to.ip().to_string().as_str() {
            "1.0.0.2" => Err(io::ErrorKind::ConnectionRefused.into()),
            "1.0.0.4" => Ok(()),
            _ => pending().await,
        }
    };
    let ((), winner) = race(&all, deadline, attempt).await.unwrap();
    assert_eq!(winner, all[3]);
    // The second fails at once, so the third starts with it; the fourth waits again.
    let elapsed = began.elapsed();
    assert!((500..520).contains(&elapsed.as_millis()), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_address_still_wins_over_later_ones() {
    let all = addresses(&["1.0.0.1:1", "1.0.0.2:1"]);
    let attempt = |to: SocketAddr| async move {
        let delay = if to.ip().to_string() == "1.0.0.1" { 400 } else { 300 };
        tokio::time::sleep(Duration::from_millis(delay)).await;
        Ok(())
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    assert_eq!(race(&all, deadline, attempt).await.unwrap().1, all[0]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_shared_out_among_many_addresses() {
    let texts: Vec<String> = (1..=60).map(|n| format!("10.0.0.{n}:1")).collect();
    let all: Vec<SocketAddr> = texts.iter().map(|text| address(text)).collect();
    let last = all[59];
    let attempt = |to: SocketAddr| async move { if to == last { Ok(()) } else { pending().await } };
    let deadline = Instant::now() + Duration::from_secs(5);
    assert_eq!(race(&all, deadline, attempt).await.unwrap().1, last);
}

#[tokio::test(start_paused = true)]
async fn errors_name_what_happened() {
    let one = addresses(&["1.0.0.1:1"]);
    let two = addresses(&["1.0.0.1:1", "1.0.0.2:1"]);
    let deadline = || Instant::now() + Duration::from_secs(5);
    let refused = |_| async { Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)) };
    let error = race(&one, deadline(), refused).await.unwrap_err();
    assert_eq!(error.to_string(), "connection refused");
    let error = race(&two, deadline(), refused).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(error.to_string(), "connection refused (1.0.0.1:1; 2 addresses failed)");
    let silent = |_| pending::<io::Result<()>>();
    let error = race(&one, deadline(), silent).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "1.0.0.1:1 does not respond");
    let error = race(&two, deadline(), silent).await.unwrap_err();
    assert_eq!(error.to_string(), "none of 2 addresses responds");
}

#[tokio::test(start_paused = true)]
async fn the_winner_is_tried_first_for_a_while() {
    let list = addresses(&["127.0.0.1:9", "127.0.0.2:9"]);
    let host: Box<str> = "127.0.0.1".into();
    let all = Addresses { host: host.clone(), port: 9, list: list.clone(), are_several: true };
    all.succeeded(list[1]);
    let winner = || winners().get(&(host.clone(), 9)).map(|winner| winner.address);
    assert_eq!(winner(), Some(list[1]));
    let since = winners()[&(host.clone(), 9)].since;
    tokio::time::advance(WINNER_TTL / 2).await;
    all.succeeded(list[1]);
    assert_eq!(winners()[&(host.clone(), 9)].since, since, "it would never be checked again");
    tokio::time::advance(WINNER_TTL).await;
    all.succeeded(list[1]);
    assert_ne!(winners()[&(host.clone(), 9)].since, since);
    let mut all = all;
    all.rule_out(list[1]);
    assert_eq!((winner(), all.count()), (None, 1));
}
