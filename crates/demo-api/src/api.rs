//! The rules of reading and writing objects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::admit;
use super::error::{ApiError, details};
use super::kinds::Kind;
use super::managed_fields;
use super::object;
use super::rules::{
    check_namespace, check_preconditions, check_type, counts_generations, has_finalizers,
    is_being_deleted, keep_what_writers_cannot_change, same_content,
};
use super::seed;
use super::selector::Selector;
use super::session::Files;
use super::store::{Key, Store};
use super::watch::Watch;
use k8s_audit::user::UserInfo;

/// An in-memory Kubernetes API. Clones share their objects.
#[derive(Clone)]
pub(crate) struct Api {
    store: Arc<Mutex<Store>>,
    /// Notifies of new versions.
    changed: watch::Sender<u64>,
    tokens: Arc<Mutex<BTreeMap<String, UserInfo>>>,
    files: Files,
}

/// The options of a write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Write {
    /// Store nothing.
    pub dry_run: bool,
    /// Recorded in `managedFields`.
    pub manager: String,
    /// Server-side apply, and not an update.
    pub apply: bool,
    /// The subresource; empty for the object itself.
    pub subresource: String,
}

/// The options and preconditions of a deletion.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delete {
    /// Delete nothing.
    pub dry_run: bool,
    /// The required UID; empty for any.
    pub uid: String,
    /// The required version; empty for any.
    pub resource_version: String,
}

impl Default for Api {
    fn default() -> Api {
        Api::new()
    }
}

impl Api {
    /// Creates the API of a new cluster with a few sample objects.
    pub(crate) fn new() -> Api {
        let api = Api {
            store: Arc::new(Mutex::new(Store::new())),
            changed: watch::channel(0).0,
            tokens: Arc::default(),
            files: Files::default(),
        };
        seed::create_objects(&api);
        api
    }

    /// Returns the files of pods.
    pub(crate) fn files(&self) -> Files {
        self.files.clone()
    }

    /// Accepts this bearer token for this user.
    #[cfg(test)]
    pub(crate) fn accept_token(&self, token: &str, user: UserInfo) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.into(), user);
    }

    /// Returns the user of a bearer token.
    pub(crate) fn user_of_token(&self, token: &str) -> Option<UserInfo> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// Returns the served kinds.
    pub(crate) fn kinds(&self) -> Vec<Arc<Kind>> {
        self.locked().kinds().cloned().collect()
    }

    /// Returns a kind.
    pub(crate) fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let store = self.locked();
        let mut kinds = store.kinds();
        kinds.find(|k| k.group == group && k.version == version && k.plural == plural).cloned()
    }

    /// Returns an object.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, ApiError> {
        let key = Key::new(kind, namespace, name);
        let found = self.locked().get(&key).cloned();
        found.ok_or_else(|| ApiError::not_found(kind, name))
    }

    /// Returns the selected objects, of all namespaces if none is given, and the version of the
    /// list.
    pub(crate) fn list(
        &self,
        kind: &Kind,
        namespace: &str,
        selector: &Selector,
    ) -> (Vec<Arc<Value>>, u64) {
        let store = self.locked();
        let resource = kind.resource();
        let all = store.of(&resource, if kind.namespaced { namespace } else { "" });
        let selected = all.map(|(_, object)| object).filter(|object| selector.matches(object));
        (selected.cloned().collect(), store.version())
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// 400, 404 (namespace), 409 or 422.
    pub(crate) fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        write: &Write,
    ) -> Result<Arc<Value>, ApiError> {
        check_type(kind, &object)?;
        check_namespace(kind, namespace, &object)?;
        if object::name(&object).is_empty() {
            let prefix = object::text(&object, "/metadata/generateName");
            if !prefix.is_empty() {
                let name = format!("{prefix}{}", object::name_suffix());
                object::metadata(&mut object).insert("name".into(), name.into());
            }
        }
        let name = object::name(&object).to_owned();
        object::check_name(kind, &name)?;
        if !object["metadata"]["resourceVersion"].as_str().unwrap_or("").is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::bad_request(message));
        }
        let key = Key::new(kind, namespace, &name);

        let mut store = self.locked();
        let home = Key {
            resource: "namespaces".into(),
            namespace: String::new(),
            name: namespace.to_owned(),
        };
        if kind.namespaced && store.get(&home).is_none() {
            let details = json!({"name": namespace, "kind": "namespaces"});
            return Err(ApiError {
                code: http::StatusCode::NOT_FOUND,
                reason: "NotFound",
                message: format!("namespaces {namespace:?} not found"),
                details,
            });
        }
        if store.get(&key).is_some() {
            return Err(ApiError::already_exists(kind, &name));
        }
        let submitted = object.clone();
        if kind.has("status") {
            object::entries(&mut object).remove("status");
        }
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.as_str().into();
        let metadata = object::metadata(&mut object);
        if kind.namespaced {
            metadata.insert("namespace".into(), namespace.into());
        }
        metadata.insert("uid".into(), object::uid().into());
        metadata.insert("creationTimestamp".into(), object::now().into());
        metadata.remove("deletionTimestamp");
        metadata.remove("managedFields");
        if counts_generations(kind) {
            metadata.insert("generation".into(), 1.into());
        }
        managed_fields::record(kind, &mut object, &submitted, write);
        admit::created(kind, &mut object);
        if write.dry_run {
            return Ok(Arc::new(object));
        }
        let stored = store.put(key, object);
        if kind.is("", "namespaces") {
            seed::in_namespace(&mut store, &name);
        }
        self.publish(&store);
        Ok(stored)
    }

    /// Replaces an object with the result of `change`.
    ///
    /// # Errors
    /// 404, 409, 400, and those of `change`.
    pub(crate) fn modify(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        write: &Write,
        change: impl FnOnce(&Value) -> Result<Value, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let key = Key::new(kind, namespace, name);
        let mut store = self.locked();
        let old = store.get(&key).cloned().ok_or_else(|| ApiError::not_found(kind, name))?;
        let mut new = change(&old)?;
        check_type(kind, &new)?;
        check_namespace(kind, namespace, &new)?;
        if object::name(&new) != name {
            let message = format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                object::name(&new)
            );
            return Err(ApiError::bad_request(message));
        }
        let expected = object::text(&new, "/metadata/resourceVersion");
        if !expected.is_empty() && expected != object::text(&old, "/metadata/resourceVersion") {
            let why = "the object has been modified; please apply your changes to the latest \
                       version and try again";
            return Err(ApiError::conflict(kind, name, why));
        }
        keep_what_writers_cannot_change(kind, &old, &mut new, &write.subresource);
        if same_content(&old, &new) {
            return Ok(old);
        }
        if counts_generations(kind) && old.get("spec") != new.get("spec") {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
            object::metadata(&mut new).insert("generation".into(), generation.into());
        }
        let submitted = new.clone();
        managed_fields::record(kind, &mut new, &submitted, write);
        if write.subresource != "status" {
            admit::updated(kind, &mut new);
        }
        if write.dry_run {
            return Ok(Arc::new(new));
        }
        let finished = is_being_deleted(&new) && !has_finalizers(&new);
        let mut stored = store.put(key.clone(), new);
        if finished {
            stored = store.remove(&key).unwrap_or(stored);
        }
        self.publish(&store);
        Ok(stored)
    }

    /// Deletes an object, or starts its deletion if it has finalizers. Returns the body of the
    /// response: the object for pods, namespaces and objects with finalizers, otherwise a `Status`.
    ///
    /// # Errors
    /// 404 and 409.
    pub(crate) fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &Delete,
    ) -> Result<Value, ApiError> {
        let key = Key::new(kind, namespace, name);
        let mut store = self.locked();
        let old = store.get(&key).cloned().ok_or_else(|| ApiError::not_found(kind, name))?;
        check_preconditions(kind, &old, options)?;
        let shows_object = kind.is("", "pods") || kind.is("", "namespaces") || has_finalizers(&old);
        let mut dying = Value::clone(&old);
        if kind.is("", "namespaces") {
            dying["status"] = json!({"phase": "Terminating"});
        }
        if !is_being_deleted(&old) {
            let metadata = object::metadata(&mut dying);
            metadata.insert("deletionTimestamp".into(), object::now().into());
            metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
        }
        if !options.dry_run {
            if has_finalizers(&old) {
                if !is_being_deleted(&old) {
                    dying = Value::clone(&store.put(key, dying));
                }
            } else {
                if kind.is("", "namespaces") {
                    for inside in store.keys_in(name) {
                        store.remove(&inside);
                    }
                }
                store.remove(&key);
            }
            self.publish(&store);
        }
        if shows_object {
            return Ok(dying);
        }
        let mut details = details(kind, name);
        details["uid"] = old["metadata"]["uid"].clone();
        Ok(json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }))
    }

    /// Watches the selected objects: the existing ones (if `since` is `None`) or the changes after
    /// a version, and then all later changes.
    ///
    /// # Errors
    /// 410 if that version is no longer in the history.
    pub(crate) fn watch(
        &self,
        kind: &Kind,
        namespace: &str,
        selector: Selector,
        since: Option<u64>,
    ) -> Result<Watch, ApiError> {
        let changed = self.changed.subscribe();
        let store = self.locked();
        let namespace = if kind.namespaced { namespace } else { "" };
        let resource = kind.resource();
        let (present, cursor) = match since {
            None => {
                let all = store.of(&resource, namespace).map(|(_, object)| object);
                let selected = all.filter(|object| selector.matches(object)).cloned().collect();
                (selected, store.version())
            }
            Some(version) => {
                if let Err(oldest) = store.since(version).map(drop) {
                    return Err(ApiError::expired(version, oldest));
                }
                (Vec::new(), version)
            }
        };
        drop(store);
        Ok(Watch::new(self.clone(), changed, resource, namespace.into(), selector, present, cursor))
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, store: &Store) {
        self.changed.send_replace(store.version());
    }
}
