//! Creates objects, never overwriting one.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{
    Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions,
};

/// Larger objects are uploaded in parts of this size.
pub const PART: usize = 16 << 20;

/// The content of an object.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Memory(Bytes),
    File(Arc<File>, u64),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File(_, size) => *size,
        }
    }

    async fn part(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        match self {
            Content::Memory(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Content::File(file, _) => {
                let file = Arc::clone(file);
                let read = move || {
                    let mut bytes = vec![0; (range.end - range.start) as usize];
                    file.read_exact_at(&mut bytes, range.start)?;
                    Ok::<_, io::Error>(bytes.into())
                };
                let read = tokio::task::spawn_blocking(read).await;
                let failed = |error| Error::Generic { store: "file", source: error };
                read.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))
            }
        }
    }
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    /// It is stored.
    New,
    /// It was there already, with the same content.
    Same,
    /// There is one with another content.
    Other,
}

/// Creates an object. Nothing is left of it after an error.
pub(super) async fn create(
    store: &dyn ObjectStore,
    key: &Path,
    content: &Content,
    attributes: Attributes,
) -> object_store::Result<Created> {
    let created = match content.size() > PART as u64 {
        true => in_parts(store, key, content, attributes).await,
        false => {
            let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
            let bytes = content.part(0..content.size()).await?;
            store.put_opts(key, bytes.into(), options).await.map(drop)
        }
    };
    match created {
        Ok(()) => Ok(Created::New),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
            let same = is_same(store, key, content).await?;
            Ok(if same { Created::Same } else { Created::Other })
        }
        Err(error) => Err(error),
    }
}

async fn in_parts(
    store: &dyn ObjectStore,
    key: &Path,
    content: &Content,
    attributes: Attributes,
) -> object_store::Result<()> {
    match store.head(key).await {
        Ok(_) => {
            let path = key.to_string();
            return Err(Error::AlreadyExists { path, source: "it is there".into() });
        }
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let mut upload = store.put_multipart_opts(key, options).await?;
    let parts = async {
        let mut start = 0;
        while start < content.size() {
            let end = content.size().min(start + PART as u64);
            upload.put_part(content.part(start..end).await?.into()).await?;
            start = end;
        }
        upload.complete().await.map(drop)
    };
    let result = parts.await;
    if result.is_err() {
        // Parts that are left over cost money until the bucket's lifecycle deletes them.
        let _ = upload.abort().await;
    }
    result
}

async fn is_same(
    store: &dyn ObjectStore,
    key: &Path,
    content: &Content,
) -> object_store::Result<bool> {
    let found = store.get_opts(key, GetOptions::default()).await?;
    if found.meta.size != content.size() {
        return Ok(false);
    }
    let (mut stored, mut at) = (found.into_stream(), 0);
    while let Some(part) = stored.next().await {
        let part = part?;
        let end = at + part.len() as u64;
        if end > content.size() || content.part(at..end).await? != part {
            return Ok(false);
        }
        at = end;
    }
    Ok(at == content.size())
}
