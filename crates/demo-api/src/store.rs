//! Objects, their versions, and the history that watches read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::kinds::{self, BUILT_IN, Kind};
use super::object;

/// Number of changes that are kept for watches that start in the past.
const HISTORY: usize = 10_000;

/// Identifies an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// `configmaps`, `deployments.apps`.
    pub resource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object of that kind.
    pub(crate) fn new(kind: &Kind, namespace: &str, name: &str) -> Key {
        let namespace = if kind.namespaced { namespace } else { "" };
        Key { resource: kind.resource(), namespace: namespace.into(), name: name.into() }
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The version that the change created.
    pub version: u64,
    /// The object's key.
    pub key: Key,
    /// The object before the change; `None` for a creation.
    pub old: Option<Arc<Value>>,
    /// The object after the change; for a deletion its last state, with the version of the
    /// deletion.
    pub new: Arc<Value>,
    /// Whether the object was deleted.
    pub deleted: bool,
}

/// All objects. The rules for them are in [`super::api`].
#[derive(Debug)]
pub(crate) struct Store {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// Custom kinds by the name of their CustomResourceDefinition.
    custom: BTreeMap<String, Vec<Arc<Kind>>>,
    built_in: Vec<Arc<Kind>>,
}

impl Store {
    /// An empty store with the built-in kinds.
    pub(crate) fn new() -> Store {
        Store {
            version: 1,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            custom: BTreeMap::new(),
            built_in: BUILT_IN.iter().cloned().map(Arc::new).collect(),
        }
    }

    /// The version of the last change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The served kinds.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.built_in.iter().chain(self.custom.values().flatten())
    }

    /// Returns an object.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// Returns the objects of a resource in a namespace, or in all namespaces if it is empty.
    pub(crate) fn of<'s>(
        &'s self,
        resource: &'s str,
        namespace: &'s str,
    ) -> impl Iterator<Item = (&'s Key, &'s Arc<Value>)> {
        let first = Key {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        self.objects.range(first..).take_while(move |(key, _)| {
            key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
        })
    }

    /// The keys of all objects in a namespace.
    pub(crate) fn keys_in(&self, namespace: &str) -> Vec<Key> {
        self.objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// Stores an object, with a new `resourceVersion`.
    pub(crate) fn put(&mut self, key: Key, object: Value) -> Arc<Value> {
        let new = self.stamp(object);
        let old = self.objects.insert(key.clone(), new.clone());
        self.define(&key, Some(&new));
        self.remember(Change { version: self.version, key, old, new: new.clone(), deleted: false });
        new
    }

    /// Removes an object and returns its last state.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        let new = self.stamp(Value::clone(&old));
        self.define(key, None);
        self.remember(Change {
            version: self.version,
            key: key.clone(),
            old: Some(old),
            new: new.clone(),
            deleted: true,
        });
        Some(new)
    }

    /// Returns the changes after a version.
    ///
    /// # Errors
    /// The oldest available version, if that version is no longer in the history.
    pub(crate) fn since(&self, version: u64) -> Result<impl Iterator<Item = &Change>, u64> {
        if self.history.len() == HISTORY
            && let Some(oldest) = self.history.front()
            && version + 1 < oldest.version
        {
            return Err(oldest.version);
        }
        let first = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(first..))
    }

    fn stamp(&mut self, mut object: Value) -> Arc<Value> {
        self.version += 1;
        let version = self.version.to_string();
        object::metadata(&mut object).insert("resourceVersion".into(), version.into());
        Arc::new(object)
    }

    fn remember(&mut self, change: Change) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(change);
    }

    /// Starts or stops serving the kinds of a CustomResourceDefinition.
    fn define(&mut self, key: &Key, definition: Option<&Value>) {
        if key.resource != kinds::qualified("customresourcedefinitions", kinds::CRD_GROUP) {
            return;
        }
        match definition {
            Some(definition) => {
                let kinds = kinds::custom(definition).into_iter().map(Arc::new).collect();
                self.custom.insert(key.name.clone(), kinds);
            }
            None => {
                self.custom.remove(&key.name);
                let gone: Vec<_> = self.of(&key.name, "").map(|(key, _)| key.clone()).collect();
                for key in gone {
                    self.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: "configmaps".into(), namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn history_returns_changes_after_a_version() {
        let mut store = Store::new();
        store.put(key("a"), json!({"n": 1}));
        let version = store.version();
        store.put(key("a"), json!({"n": 2}));
        store.remove(&key("a"));
        let changes: Vec<_> = store.since(version).unwrap().collect();
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0].old.as_ref().unwrap()["n"], 1);
        assert_eq!(changes[0].new["n"], 2);
        assert!(changes[1].deleted);
        assert_eq!(changes[1].new["metadata"]["resourceVersion"], store.version().to_string());
    }

    #[test]
    fn forgotten_history_is_an_error() {
        let mut store = Store::new();
        for _ in 0..=HISTORY {
            store.put(key("a"), json!({}));
        }
        assert!(store.since(1).is_err());
        assert_eq!(store.since(store.version()).unwrap().count(), 0);
    }
}
