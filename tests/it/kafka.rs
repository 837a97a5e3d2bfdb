//! The backend `kafka` against a real broker, Tansu (`tests/servers/install.sh`): `kill -9` of the
//! proxy, and outages of the broker. Its records are in memory, so a relay in front of it is cut
//! instead of killing it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use krafka::admin::NewTopic;
use krafka::consumer::{AutoOffsetReset, ConsumerRecord};
use test_support::servers::{self, Server};

use crate::support::TempDir;
use crate::support::client;
use crate::support::delivery::{
    EventKey, PATIENCE, Relay, check_complete, key, load, stages, two_sinks, until,
};
use crate::support::upstream::{FakeUpstream, Protocols, json};

/// Each has two events.
const REQUESTS: usize = 10_000;
const PARTITIONS: i32 = 4;

/// A broker whose clients are all connected through the relay.
async fn broker() -> Option<(Server, Relay)> {
    let address = servers::free_address();
    let relay = Relay::start(address).await;
    let server = Server::start(servers::tansu(address, relay.address)?, address);
    let kafka = krafka::Kafka::builder(relay.address.to_string()).connect().await.unwrap();
    let topic = NewTopic::new("audit", PARTITIONS, 1).unwrap();
    let created = kafka.admin().create_topics([topic], Default::default()).await.unwrap();
    assert!(created.into_values().all(|topic| topic.is_ok()));
    Some((server, relay))
}

/// Reads the topic from the beginning until all events of these requests are there, and what comes
/// at once after them. (Tansu's offset of the end is that of the last batch's first record.)
async fn records(relay: &Relay, answered: &[String]) -> Vec<ConsumerRecord> {
    let kafka = krafka::Kafka::builder(relay.address.to_string()).connect().await.unwrap();
    let consumer = kafka.consumer_without_group().auto_offset_reset(AutoOffsetReset::Earliest);
    let consumer = consumer.build().await.unwrap();
    consumer.assign("audit", (0..PARTITIONS).collect()).await.unwrap();
    let mut missing: HashSet<EventKey> = answered.iter().flat_map(|id| stages(id)).collect();
    let mut records = Vec::new();
    let started = Instant::now();
    loop {
        let next = consumer.poll(Duration::from_millis(500)).await.unwrap();
        if next.is_empty() && (missing.is_empty() || started.elapsed() > PATIENCE) {
            break;
        }
        for record in &next {
            missing.remove(&key(std::str::from_utf8(record.value.as_deref().unwrap()).unwrap()));
        }
        records.extend(next);
    }
    consumer.close().await.unwrap();
    records
}

/// The partition of a request, and the first offset of each stage.
type Place<'a> = (i32, HashMap<&'a [u8], i64>);

/// How often each event is in the topic. Checks that each record is its event, and that the events
/// of each request are in one partition, in order.
fn check(records: &[ConsumerRecord]) -> HashMap<EventKey, u32> {
    let mut counts: HashMap<EventKey, u32> = HashMap::new();
    let mut first: HashMap<&[u8], Place<'_>> = HashMap::new();
    for record in records {
        let value = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
        let (id, stage) = key(value);
        let header = |name: &str| {
            let header = record.headers.iter().find(|(key, _)| key == name).unwrap();
            header.1.as_deref().unwrap()
        };
        let record_key = record.key.as_deref().unwrap();
        assert_eq!((record_key, header("stage")), (id.as_bytes(), stage.as_bytes()));
        assert_eq!((header("cluster"), header("node")), (&b"prod"[..], &b"proxy-0"[..]));
        *counts.entry((id, stage)).or_default() += 1;
        let (partition, offsets) =
            first.entry(record_key).or_insert((record.partition, HashMap::new()));
        assert_eq!(*partition, record.partition);
        let offset = offsets.entry(header("stage")).or_insert(record.offset);
        *offset = (*offset).min(record.offset);
    }
    for (_, offsets) in first.values() {
        if let (Some(received), Some(complete)) =
            (offsets.get(&b"RequestReceived"[..]), offsets.get(&b"ResponseComplete"[..]))
        {
            assert!(received < complete, "in order");
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_proxy_is_killed_and_the_broker_is_gone() {
    let Some((_server, relay)) = broker().await else { return };
    let dir = TempDir::new();
    let upstream =
        FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
    let (log, spool) = (dir.path("audit.log"), dir.path("spool"));
    let keys =
        format!("  brokers: {}\n  topic: audit\n  cluster: prod\n  node: proxy-0\n", relay.address);
    let start = || two_sinks(upstream.addr, &log, &spool, "kafka", &keys);

    // Killed under load.
    let mut proxy = start().start().await;
    let mut answered = load(&proxy, "a", REQUESTS / 2, Some(REQUESTS / 4)).await;
    proxy.process.wait().await;
    drop(proxy);

    // The broker is gone, then back; killed while the spool is sent.
    relay.cut();
    let mut proxy = start().start().await;
    answered.extend(load(&proxy, "b", REQUESTS / 2, None).await);
    until(&proxy, "kube_audit_proxy_delivery_healthy", |healthy| healthy == 0).await;
    let (status, ready) = client::admin(proxy.admin, "/readyz?verbose").await.unwrap();
    assert_eq!(status, 200, "requests wait for the spool, not for the broker: {ready}");
    relay.mend();
    until(&proxy, "kube_audit_proxy_delivery_events_total", |events| events > 0).await;
    proxy.process.signal("KILL");
    proxy.process.wait().await;
    drop(proxy);

    // Connections break off while the rest is sent.
    let mut proxy = start().start().await;
    let more = load(&proxy, "c", REQUESTS / 4 + 100, None);
    let breaking = async {
        until(&proxy, "kube_audit_proxy_delivery_events_total", |events| events > 0).await;
        relay.cut();
        tokio::time::sleep(Duration::from_millis(200)).await;
        relay.mend();
    };
    let (more, ()) = tokio::join!(more, breaking);
    answered.extend(more);
    until(&proxy, "kube_audit_proxy_spool_bytes", |bytes| bytes == 0).await;
    until(&proxy, "kube_audit_proxy_delivery_healthy", |healthy| healthy == 1).await;
    assert!(proxy.stop().await.success());

    let records = records(&relay, &answered).await;
    let counts = check(&records);
    assert!(answered.len() >= REQUESTS, "{}", answered.len());
    check_complete(&answered, &log, &counts, &proxy);
    println!("{} events, {} of them again", counts.len(), records.len() - counts.len());
}
