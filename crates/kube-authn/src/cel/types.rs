//! The types of expressions and their unification, according to the rules of cel-go that Kubernetes
//! uses.

use std::fmt;

/// The type of an expression, as far as it is known before evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    /// A value whose type is only known at evaluation, as with `dyn(claims.groups)`.
    Dyn,
    /// A claim. It behaves like [`Type::Dyn`], but macros do not iterate over it.
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Optional(Box<Type>),
    /// Kubernetes' `UserInfo`.
    User,
    /// The type of a type, as in `type(claims.n) == double`.
    Meta(Box<Type>),
    /// A type parameter. Overloads use small numbers; the checker replaces them with fresh ones.
    Param(u32),
}

impl Type {
    pub(super) fn list(element: Type) -> Type {
        Type::List(Box::new(element))
    }

    pub(super) fn map(key: Type, value: Type) -> Type {
        Type::Map(Box::new(key), Box::new(value))
    }

    pub(super) fn optional(inner: Type) -> Type {
        Type::Optional(Box::new(inner))
    }

    pub(super) fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Any)
    }

    fn parameters(&self) -> Vec<&Type> {
        match self {
            Type::List(inner) | Type::Optional(inner) | Type::Meta(inner) => vec![inner],
            Type::Map(key, value) => vec![key, value],
            _ => Vec::new(),
        }
    }

    /// Returns the type with each parameter replaced by the result of `replace`.
    pub(super) fn replace(&self, replace: &mut impl FnMut(u32) -> Type) -> Type {
        match self {
            Type::Param(id) => replace(*id),
            Type::List(inner) => Type::list(inner.replace(replace)),
            Type::Optional(inner) => Type::optional(inner.replace(replace)),
            Type::Meta(inner) => Type::Meta(Box::new(inner.replace(replace))),
            Type::Map(key, value) => Type::map(key.replace(replace), value.replace(replace)),
            other => other.clone(),
        }
    }
}

/// The types of type parameters that are known so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Substitutions {
    found: Vec<Option<Type>>,
}

impl Substitutions {
    /// Returns a new type parameter.
    pub(super) fn fresh(&mut self) -> Type {
        self.found.push(None);
        Type::Param(u32::try_from(self.found.len() - 1).unwrap_or(u32::MAX))
    }

    fn get(&self, id: u32) -> Option<&Type> {
        self.found.get(id as usize)?.as_ref()
    }

    fn set(&mut self, id: u32, found: Type) {
        if let Some(slot) = self.found.get_mut(id as usize) {
            *slot = Some(found);
        }
    }

    /// Returns `of` with all known parameters replaced.
    pub(super) fn resolve(&self, of: &Type) -> Type {
        of.replace(&mut |id| match self.get(id) {
            Some(found) => self.resolve(found),
            None => Type::Param(id),
        })
    }

    /// Returns `of` with all parameters replaced, unknown ones by `dyn`.
    pub(super) fn resolve_to_dyn(&self, of: &Type) -> Type {
        of.replace(&mut |id| self.get(id).map_or(Type::Dyn, |found| self.resolve_to_dyn(found)))
    }

    /// Returns whether each of `found` is assignable to its counterpart in `wanted`. Keeps the
    /// resulting types of parameters only in this case.
    pub(super) fn assign_all(&mut self, found: &[Type], wanted: &[Type]) -> bool {
        let mut tried = self.clone();
        let fits = found.len() == wanted.len()
            && found.iter().zip(wanted).all(|(one, other)| tried.assignable(one, other));
        if fits {
            *self = tried;
        }
        fits
    }

    /// Returns whether `found` is assignable to `wanted`.
    pub(super) fn assign(&mut self, found: &Type, wanted: &Type) -> bool {
        self.assign_all(std::slice::from_ref(found), std::slice::from_ref(wanted))
    }

    fn assignable(&mut self, one: &Type, other: &Type) -> bool {
        if let Type::Param(id) = other {
            let (valid, has_substitution) = self.substitute(one, *id);
            if valid || has_substitution {
                return valid;
            }
        }
        if let Type::Param(id) = one {
            return self.substitute(other, *id).0;
        }
        if one.is_dyn() || other.is_dyn() {
            return true;
        }
        let nullable = |t: &Type| matches!(t, Type::Null | Type::Optional(_) | Type::User);
        match (one, other) {
            (Type::Null, t) | (t, Type::Null) => nullable(t),
            (Type::Meta(_), Type::Meta(_)) => true,
            (Type::List(one), Type::List(other)) | (Type::Optional(one), Type::Optional(other)) => {
                self.assignable(one, other)
            }
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                self.assignable(key, other_key) && self.assignable(value, other_value)
            }
            _ => one == other,
        }
    }

    /// Returns whether `found` can be assigned to the parameter `id`, and whether its type was
    /// known.
    fn substitute(&mut self, found: &Type, id: u32) -> (bool, bool) {
        if *found == Type::Param(id) {
            return (true, true);
        }
        if let Some(known) = self.get(id).cloned() {
            if *found == known {
                return (true, true);
            }
            if self.assignable(found, &known) {
                let general = most_general(found.clone(), known);
                if self.is_free_of(id, &general) {
                    self.set(id, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.is_free_of(id, found) {
            self.set(id, found.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Returns whether the parameter `id` does not occur in `within`.
    fn is_free_of(&self, id: u32, within: &Type) -> bool {
        match within {
            Type::Param(other) if *other == id => false,
            Type::Param(other) => self.get(*other).is_none_or(|found| self.is_free_of(id, found)),
            other => other.parameters().into_iter().all(|inner| self.is_free_of(id, inner)),
        }
    }
}

/// Returns the more general of two types that unify.
pub(super) fn most_general(one: Type, other: Type) -> Type {
    if is_equal_or_less_specific(&one, &other) { one } else { other }
}

fn is_equal_or_less_specific(one: &Type, other: &Type) -> bool {
    if one.is_dyn() || matches!(one, Type::Param(_)) {
        return true;
    }
    if other.is_dyn() || matches!(other, Type::Param(_)) {
        return false;
    }
    match (one, other) {
        (Type::Meta(_), Type::Meta(_)) => true,
        (Type::List(one), Type::List(other)) | (Type::Optional(one), Type::Optional(other)) => {
            is_equal_or_less_specific(one, other)
        }
        (Type::Map(key, value), Type::Map(other_key, other_value)) => {
            is_equal_or_less_specific(key, other_key)
                && is_equal_or_less_specific(value, other_value)
        }
        _ => one == other,
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn | Type::Param(_) => f.write_str("dyn"),
            Type::Any => f.write_str("any"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::List(inner) => write!(f, "list({inner})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
            Type::User => f.write_str("kubernetes.UserInfo"),
            Type::Meta(inner) => write!(f, "type({inner})"),
        }
    }
}
