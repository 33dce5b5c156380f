//! What all wire types share: Go's tolerance for `null`, and Go's odd types.

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// Declares wire structs: `PascalCase` names (or `snake_case;`), every missing or `null` field is its default.
macro_rules! wire {
    (snake_case; $($item:tt)*) => { wire! { @ "snake_case" $($item)* } };
    (@ $case:literal $($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)*
    })*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        #[serde(default, rename_all = $case)]
        pub struct $name {
            $(
                $(#[$fmeta])*
                #[serde(deserialize_with = "crate::wire::null_default")]
                pub $field: $ty,
            )*
        }
    )*};
    ($($item:tt)*) => { wire! { @ "PascalCase" $($item)* } };
}

/// Takes `null` for the default value, as Go's decoder leaves a field alone.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's `omitempty` for numbers, texts and booleans, and for `Option`s, slices and maps that are empty.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go's `omitempty` for a slice or map that may also be `null`.
pub(crate) fn is_none_or_empty<'a, T>(value: &'a Option<T>) -> bool
where
    &'a T: IntoIterator,
{
    match value {
        None => true,
        Some(items) => items.into_iter().next().is_none(),
    }
}

/// Go's `struct{}`: written as `{}`, anything is read (Docker clients send `{}` and `null`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Empty;

impl Serialize for Empty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Ok(Empty)
    }
}

/// Go's `strslice.StrSlice`: a list of texts that may also be given as one text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub Vec<String>);

impl From<Vec<String>> for StrSlice {
    fn from(items: Vec<String>) -> Self {
        StrSlice(items)
    }
}

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StrSliceVisitor;
        impl<'de> Visitor<'de> for StrSliceVisitor {
            type Value = StrSlice;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a string or a list of strings")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StrSlice, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(StrSlice(items))
            }
        }
        deserializer.deserialize_any(StrSliceVisitor)
    }
}
