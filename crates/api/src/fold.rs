//! Field names as Go's decoder matches them: exactly, or else without regard to case. Old clients send `image` and
//! `hostConfig`; keys of maps (labels, ports) are data and stay as they are.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};

/// A deserializer, visitor or access whose structs take their fields' names in any case.
struct Fold<'f, T> {
    inner: T,
    /// The fields of the struct whose keys come next; empty in maps.
    fields: &'f [&'static str],
    is_struct: bool,
}

fn fold<T>(inner: T) -> Fold<'static, T> {
    Fold { inner, fields: &[], is_struct: false }
}

/// Reads a value whose structs take their fields' names in any case.
///
/// # Errors
/// The deserializer's, and those of `T`.
pub fn deserialize_folded<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: serde::Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(fold(deserializer))
}

/// The field that a key means: the one of that very name, or else one of that name in another case.
pub(crate) fn field<'k>(key: &'k str, fields: &[&'static str]) -> &'k str
where
    'static: 'k,
{
    if fields.contains(&key) {
        return key;
    }
    fields.iter().find(|field| field.eq_ignore_ascii_case(key)).copied().unwrap_or(key)
}

macro_rules! forward {
    ($($method:ident($($arg:ident: $ty:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($arg,)* fold(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Fold<'_, D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Fold { inner: visitor, fields, is_struct: true })
    }

    forward! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32()
        deserialize_i64() deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32()
        deserialize_u64() deserialize_u128() deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_seq() deserialize_map()
        deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize) deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }
}

macro_rules! visit {
    ($($method:ident($ty:ty))*) => {$(
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fold<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    visit! {
        visit_bool(bool) visit_i64(i64) visit_i128(i128) visit_u64(u64) visit_u128(u128) visit_f64(f64)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(fold(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(fold(deserializer))
    }

    /// An array is no struct, though serde would take its items for the fields in their order.
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        if self.is_struct {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self.inner));
        }
        self.inner.visit_seq(fold(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Fold { inner: map, fields: self.fields, is_struct: self.is_struct })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(fold(data))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Fold<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(fold(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fold<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        if self.fields.is_empty() {
            return self.inner.next_key_seed(seed);
        }
        let Some(key) = self.inner.next_key::<String>()? else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(field(&key, self.fields))).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(fold(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Fold<'_, A> {
    type Error = A::Error;
    type Variant = Fold<'static, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, fold(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Fold<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(fold(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, fold(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Fold { inner: visitor, fields, is_struct: true })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Fold<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(fold(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateRequest, NetworkCreate};

    fn read<T: for<'de> serde::Deserialize<'de>>(text: &str) -> Result<T, serde_json::Error> {
        deserialize_folded(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn fields_are_taken_in_any_case_and_map_keys_as_they_are() {
        let network: NetworkCreate = read(
            r#"{"name": "n", "IPAM": {"config": [{"SUBNET": "10.0.0.0/8"}]}, "labels": {"Name": "a", "name": "b"}}"#,
        )
        .unwrap();
        let right: NetworkCreate = serde_json::from_str(
            r#"{"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}]}, "Labels": {"Name": "a", "name": "b"}}"#,
        )
        .unwrap();
        assert_eq!(network, right);
    }

    #[test]
    fn the_parts_of_a_container_are_found_too() {
        let folded: CreateRequest = read(
            r#"{"image": "i", "hostconfig": {"memory": 5, "binds": ["a:b"]}, "labels": {"Image": "x"}}"#,
        )
        .unwrap();
        let right: CreateRequest = serde_json::from_str(
            r#"{"Image": "i", "HostConfig": {"Memory": 5, "Binds": ["a:b"]}, "Labels": {"Image": "x"}}"#,
        )
        .unwrap();
        assert_eq!(folded, right);
        let error = read::<CreateRequest>(r#"{"hostConfig": {"memory": "x"}}"#).unwrap_err().to_string();
        assert!(error.starts_with("HostConfig: "), "{error}");
    }

    #[test]
    fn an_array_is_no_struct() {
        assert!(read::<NetworkCreate>(r#"["name"]"#).is_err());
        for host_config in
            ["[]", r#"[["/tmp:/a"]]"#, r#"{"RestartPolicy": ["always", 0]}"#, r#"{"Mounts": [["bind"]]}"#]
        {
            let text = format!(r#"{{"Image": "i", "HostConfig": {host_config}}}"#);
            assert!(read::<CreateRequest>(&text).is_err(), "{text}");
        }
    }
}
