//! `--resource RESOURCE[.GROUP][/SUBRESOURCE]`.

use super::pattern::Pattern;
use crate::event::Object;

/// Parts that are not given match anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourcePattern {
    pub(crate) resource: Pattern,
    pub(crate) group: Option<Pattern>,
    pub(crate) subresource: Option<Pattern>,
}

impl ResourcePattern {
    pub(crate) fn new(text: &str) -> ResourcePattern {
        let (resource, subresource) = match text.split_once('/') {
            Some((resource, subresource)) => (resource, Some(Pattern::new(subresource))),
            None => (text, None),
        };
        let (resource, group) = match resource.split_once('.') {
            Some((resource, group)) => (resource, Some(Pattern::new(group))),
            None => (resource, None),
        };
        ResourcePattern { resource: Pattern::new(resource), group, subresource }
    }

    pub(crate) fn matches(&self, object: &Object<'_>) -> bool {
        let part =
            |pattern: &Option<Pattern>, text| pattern.as_ref().is_none_or(|one| one.matches(text));
        object.resource.is_some()
            && self.resource.matches(object.resource)
            && part(&self.group, object.api_group)
            && part(&self.subresource, object.subresource)
    }
}
