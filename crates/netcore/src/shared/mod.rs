//! An ordered map whose copies share what they have in common. A container may publish ten thousand
//! ports; who adds one to a copy of the list, and compares the two, is to pay for one.

mod differences;
mod entries;
mod piece;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use self::differences::Differences;
use self::entries::Entries;
pub use self::piece::Piece;

/// An ordered map: a tree of [`Piece`]s, which copies share. A copy costs one reference count, a lookup a
/// logarithmic search, a change that and a copy of the few pieces on its way, and a comparison
/// ([`Self::changes_from`]) what the two do not share.
pub struct SharedMap<K, V> {
    /// None is empty, and all that have entries are as far from this one.
    root: Option<Arc<Piece<K, V>>>,
    len: usize,
}

/// An ordered set whose copies share what they have in common.
pub type SharedSet<T> = SharedMap<T, ()>;

impl<K, V> SharedMap<K, V> {
    /// Nothing.
    pub fn new() -> Self {
        Self { root: None, len: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The piece that all entries are in, if there is one.
    pub fn root(&self) -> Option<&Piece<K, V>> {
        self.root.as_deref()
    }

    /// The entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        Entries::of(self.root()).map(|(key, value)| (key, value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// The entries from a key on, whether there is one for it or not.
    pub fn iter_from<Q: Ord + ?Sized>(&self, key: &Q) -> impl Iterator<Item = (&K, &V)>
    where
        K: Borrow<Q>,
    {
        Entries::from(self.root(), key).map(|(key, value)| (key, value))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.root()?.get(key)
    }

    /// Whether there is an entry for a key.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Puts an entry in; the value that its key had before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some(root) = &mut self.root else {
            self.root = Some(Arc::new(Piece::of_one(key, value)));
            self.len = 1;
            return None;
        };
        let (old, rest) = Arc::make_mut(root).insert(key, value);
        if let Some(rest) = rest {
            *root = Arc::new(Piece::of_two(Arc::clone(root), rest));
        }
        self.len += usize::from(old.is_none());
        old
    }

    /// The value of a key to change; what `make` makes is put in if there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.contains(&key) {
            self.insert(key.clone(), make());
        }
        let root = self.root.as_mut().expect("it has the entry");
        Arc::make_mut(root).get_mut(&key).expect("it is there or was just put in")
    }

    /// Takes an entry out; its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if !self.contains(key) {
            return None;
        }
        let root = self.root.as_mut()?;
        let value = Arc::make_mut(root).remove(key);
        self.len -= usize::from(value.is_some());
        if self.len == 0 {
            self.root = None;
        } else {
            while let Some(only) = root.only_piece() {
                *root = only;
            }
        }
        value
    }

    /// Takes all entries of another one in.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else {
            self.extend(other.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }

    /// Keeps the entries that `keep` says yes to; pieces that stay whole stay shared.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let gone: Vec<K> =
            self.iter().filter(|(key, value)| !keep(key, value)).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.remove(key);
        }
    }
}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// The entries that `other` has not, or not so, in order.
    pub fn changes_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a K, &'a V)> {
        Differences::new(self.root.as_ref(), other.root.as_ref())
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.changes_from(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<T: Ord + Clone> FromIterator<T> for SharedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().map(|item| (item, ())).collect()
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Box<dyn Iterator<Item = (&'a K, &'a V)> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}
