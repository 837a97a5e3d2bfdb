use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;

/// A store in memory with faults.
#[derive(Debug, Default)]
struct FakeStore {
    inner: InMemory,
    /// So many creations fail before the object is stored, and then so many afterwards.
    fail_before: AtomicU32,
    fail_after: AtomicU32,
    puts: AtomicU32,
}

impl fmt::Display for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeStore")
    }
}

fn fails(count: &AtomicU32) -> object_store::Result<()> {
    let left = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    match left {
        Ok(_) => Err(Error::Generic { store: "fake", source: "503 Slow Down".into() }),
        Err(_) => Ok(()),
    }
}

#[async_trait::async_trait]
impl ObjectStore for FakeStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        assert_eq!(options.mode, PutMode::Create, "nothing is overwritten");
        self.puts.fetch_add(1, Ordering::SeqCst);
        fails(&self.fail_before)?;
        let put = self.inner.put_opts(location, payload, options).await?;
        fails(&self.fail_after)?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn settings(format: Format) -> S3Settings {
    S3Settings {
        url: "s3://audit/logs".to_owned(),
        endpoint: None,
        region: None,
        allow_http: false,
        ca_file: None,
        format,
        cluster: "prod".to_owned(),
        node: "proxy-0".to_owned(),
        encryption: Encryption::Bucket,
        storage_class: None,
        lock: None,
    }
}

fn destination(format: Format) -> (S3Destination, Arc<FakeStore>) {
    let store = Arc::new(FakeStore::default());
    let prefix = Path::parse("logs").unwrap();
    (S3Destination::with_store(store.clone(), prefix, settings(format)), store)
}

/// A segment in a file without a name.
fn segment(number: u64, lines: &str) -> BatchFile {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let path = std::env::temp_dir().join(format!("audit-stream-{}-{count}", std::process::id()));
    let mut file = File::create_new(&path).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (bytes, events) = (lines.len() as u64, lines.lines().count() as u64);
    BatchFile { number, file: Arc::new(file), bytes, events }
}

fn event(id: u32, received: &str) -> String {
    format!("{{\"auditID\":\"{id}\",\"requestReceivedTimestamp\":\"{received}\"}}\n")
}

async fn objects(store: &FakeStore) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for meta in store.inner.list(None).collect::<Vec<_>>().await {
        let meta = meta.unwrap();
        let content = store.inner.get(&meta.location).await.unwrap().bytes().await.unwrap();
        let text = zstd::decode_all(&content[..]).unwrap();
        found.push((meta.location.to_string(), String::from_utf8(text).unwrap()));
    }
    found.sort();
    found
}

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
const FOUR: &str = "2026-11-23T04:59:59.000000Z";
const FIVE: &str = "2026-11-23T05:00:00.000000Z";

fn key(hour: &str, name: &str) -> String {
    format!("logs/cluster=prod/date=2026-11-23/hour={hour}/proxy-0-{name}.json.zst")
}

#[tokio::test]
async fn events_of_each_hour_are_one_object_in_their_order() {
    let (destination, store) = destination(Format::Ndjson);
    let lines = [event(1, FOUR), event(2, FIVE), event(3, FOUR)];
    destination.deliver_file(segment(7, &lines.concat())).await.unwrap();
    let name = "00000000000000000007";
    let [one, two, three] = &lines;
    let expected = vec![(key("04", name), format!("{one}{three}")), (key("05", name), two.clone())];
    assert_eq!(objects(&store).await, expected);
}

#[tokio::test]
async fn a_redelivered_segment_changes_nothing() {
    for format in [Format::Ndjson, Format::Parquet] {
        let (destination, store) = destination(format);
        let batch = segment(7, &[event(1, FOUR), event(2, FIVE)].concat());
        destination.deliver_file(batch.clone()).await.unwrap();
        destination.deliver_file(batch).await.unwrap();
        assert_eq!(store.inner.list(None).count().await, 2, "{format:?}");
    }
}

#[tokio::test]
async fn an_object_with_another_content_is_kept_and_the_new_one_gets_another_name() {
    let (destination, store) = destination(Format::Ndjson);
    destination.deliver_file(segment(7, &event(1, FOUR))).await.unwrap();
    let other = segment(7, &event(2, FOUR));
    destination.deliver_file(other.clone()).await.unwrap();
    destination.deliver_file(other).await.unwrap();
    let found = objects(&store).await;
    assert_eq!(found.len(), 2);
    assert_eq!([&found[0].1, &found[1].1], [&event(2, FOUR), &event(1, FOUR)]);
    let hashed = key("04", "00000000000000000007-").replace(".json.zst", "");
    assert!(found[0].0.starts_with(&hashed), "{found:?}");
}

#[tokio::test]
async fn an_attempt_resumes_where_the_last_one_failed() {
    let (destination, store) = destination(Format::Ndjson);
    let batch = segment(7, &[event(1, FOUR), event(2, FIVE)].concat());
    store.fail_before.store(1, Ordering::SeqCst);
    let error = destination.deliver_file(batch.clone()).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Unavailable { .. }), "{error:?}");
    assert_eq!(error.to_string(), "503 Slow Down");
    // The response of a creation that succeeds is lost.
    store.fail_after.store(1, Ordering::SeqCst);
    destination.deliver_file(batch.clone()).await.unwrap_err();
    destination.deliver_file(batch).await.unwrap();
    assert_eq!(objects(&store).await.len(), 2);
    assert_eq!(store.puts.load(Ordering::SeqCst), 4, "two failed, one found, one created");
}

#[tokio::test]
async fn large_objects_are_uploaded_in_parts_and_not_overwritten() {
    let (destination, store) = destination(Format::Ndjson);
    let key = Path::parse("large").unwrap();
    let mut large = vec![7; PART * 2 + 1];
    let object = Bytes::from(large.clone());
    assert!(destination.create(&key, object.clone()).await.unwrap());
    assert_eq!(store.puts.load(Ordering::SeqCst), 0, "in parts");
    assert_eq!(store.inner.get(&key).await.unwrap().bytes().await.unwrap(), object);
    assert!(destination.create(&key, object.clone()).await.unwrap(), "the same");
    large[PART * 2] = 8;
    assert!(!destination.create(&key, large.into()).await.unwrap());
    assert_eq!(store.inner.get(&key).await.unwrap().bytes().await.unwrap(), object);
}

#[test]
fn settings_that_cannot_be_used_are_reported_with_their_remedy() {
    let wrong = |change: &dyn Fn(&mut S3Settings)| {
        let mut settings = settings(Format::Parquet);
        change(&mut settings);
        let error = S3Destination::new(settings).unwrap_err();
        format!("{}: {error}", error.setting())
    };
    let error = wrong(&|settings| settings.url = "https://user:secret@audit/logs".to_owned());
    assert!(error.starts_with("url: ") && error.contains("write s3://bucket/prefix"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert!(wrong(&|settings| settings.url = "s3://".to_owned()).starts_with("url: "));
    let error = wrong(&|settings| settings.cluster = "a/b".to_owned());
    assert!(error.starts_with("cluster: \"a/b\" is not a name; use letters"), "{error}");
    let error = wrong(&|settings| settings.endpoint = Some("http://minio:9000".to_owned()));
    assert!(error.starts_with("endpoint: ") && error.contains("allow-http: true"), "{error}");
    for endpoint in ["minio:9000", "https://", "https://user:secret@minio"] {
        let error = wrong(&|settings| settings.endpoint = Some(endpoint.to_owned()));
        assert!(error.starts_with("endpoint: ") && error.contains("write https://host"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let error = wrong(&|settings| {
        settings.url = "gs://audit/logs".to_owned();
        settings.lock = Some(ObjectLock { mode: LockMode::Governance, retain: DAY });
    });
    assert!(error.starts_with("object-lock-mode: is for s3:// only"), "{error}");
    let error = wrong(&|settings| settings.ca_file = Some("/missing/ca.pem".into()));
    assert!(error.starts_with("ca-file: ") && error.contains("/missing/ca.pem"), "{error}");
}
