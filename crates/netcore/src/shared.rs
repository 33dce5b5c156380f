//! An ordered map whose copies share what they have in common. A container may publish ten thousand
//! ports; who adds one to a copy of the list, and compares the two, is to pay for one.

use std::any::Any;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Most entries of a piece; what a change copies.
const FULL: usize = 256;
/// Neighbours that have no more together become one piece.
const FEW: usize = FULL / 2;

/// An ordered map. A copy costs one reference count, a change a logarithmic search and a copy of the piece
/// it is in, and a comparison ([`Self::changes_from`]) what the two do not share.
pub struct SharedMap<K, V> {
    /// Sorted by key, within and between; none is empty.
    pieces: Arc<Vec<Arc<Piece<K, V>>>>,
    len: usize,
}

/// Some entries in order, which copies of a map may share.
pub struct Piece<K, V> {
    entries: Vec<(K, V)>,
    /// What was last worked out from the entries.
    noted: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl<K, V> Piece<K, V> {
    fn new(entries: Vec<(K, V)>) -> Arc<Self> {
        Arc::new(Self { entries, noted: OnceLock::new() })
    }

    /// What `work_out` makes of the entries: worked out once for all copies that share them, for the first
    /// type that is asked for.
    pub fn noted<T: Any + Send + Sync + Clone>(&self, work_out: impl Fn(&[(K, V)]) -> T) -> T {
        let noted = self.noted.get_or_init(|| Box::new(work_out(&self.entries)));
        noted.downcast_ref::<T>().cloned().unwrap_or_else(|| work_out(&self.entries))
    }

    /// For a change: what was noted no longer holds.
    fn entries_mut(&mut self) -> &mut Vec<(K, V)> {
        self.noted = OnceLock::new();
        &mut self.entries
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Piece<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.fmt(f)
    }
}

impl<K: Clone, V: Clone> Clone for Piece<K, V> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), noted: OnceLock::new() }
    }
}

/// An ordered set whose copies share what they have in common.
pub type SharedSet<T> = SharedMap<T, ()>;

impl<K, V> SharedMap<K, V> {
    /// Nothing.
    pub fn new() -> Self {
        Self { pieces: Arc::new(Vec::new()), len: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.pieces.iter().flat_map(|piece| &piece.entries).map(|(key, value)| (key, value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// The entries, in the pieces that copies may share.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece<K, V>> {
        self.pieces.iter().map(Arc::as_ref)
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (piece, entry) = self.find(key).ok()?;
        Some(&self.pieces[piece].entries[entry].1)
    }

    /// Whether there is an entry for a key.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// The place of a key, or where it would be.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<(usize, usize), (usize, usize)>
    where
        K: Borrow<Q>,
    {
        let before =
            |piece: &Arc<Piece<K, V>>| piece.entries.last().is_some_and(|last| last.0.borrow() < key);
        // What comes after the last goes into the last piece.
        let at = self.pieces.partition_point(before).min(self.pieces.len().saturating_sub(1));
        let entries = self.pieces.get(at).map_or(&[][..], |piece| &piece.entries);
        match entries.binary_search_by(|(other, _)| other.borrow().cmp(key)) {
            Ok(entry) => Ok((at, entry)),
            Err(entry) => Err((at, entry)),
        }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Puts an entry in; the value that its key had before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let found = self.find(&key);
        let pieces = Arc::make_mut(&mut self.pieces);
        let (at, entry) = match found {
            Ok((at, entry)) => {
                let entries = Arc::make_mut(&mut pieces[at]).entries_mut();
                return Some(std::mem::replace(&mut entries[entry].1, value));
            }
            Err(place) => place,
        };
        self.len += 1;
        let Some(piece) = pieces.get_mut(at) else {
            pieces.push(Piece::new(vec![(key, value)]));
            return None;
        };
        let entries = Arc::make_mut(piece).entries_mut();
        entries.insert(entry, (key, value));
        if entries.len() > FULL {
            // What comes in order leaves full pieces behind.
            let appended = entry + 1 == entries.len();
            let rest = entries.split_off(if appended { entry } else { entries.len() / 2 });
            pieces.insert(at + 1, Piece::new(rest));
        }
        None
    }

    /// The value of a key to change; what `make` makes is put in if there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.contains(&key) {
            self.insert(key.clone(), make());
        }
        let (at, entry) = self.find(&key).expect("it is there or was just put in");
        let piece = &mut Arc::make_mut(&mut self.pieces)[at];
        &mut Arc::make_mut(piece).entries_mut()[entry].1
    }

    /// Takes an entry out; its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at, entry) = self.find(key).ok()?;
        self.len -= 1;
        let pieces = Arc::make_mut(&mut self.pieces);
        let entries = Arc::make_mut(&mut pieces[at]).entries_mut();
        let (_, value) = entries.remove(entry);
        if entries.is_empty() {
            pieces.remove(at);
            return Some(value);
        }
        let few = |first: &usize| match pieces.get(*first..first + 2) {
            Some([piece, next]) => piece.entries.len() + next.entries.len() <= FEW,
            _ => false,
        };
        if let Some(first) = [at.checked_sub(1), Some(at)].into_iter().flatten().find(few) {
            let next = pieces.remove(first + 1);
            Arc::make_mut(&mut pieces[first]).entries_mut().extend(next.entries.iter().cloned());
        }
        Some(value)
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
        let mut differences = Differences { these: Cursor::new(self), others: Cursor::new(other) };
        std::iter::from_fn(move || differences.next())
    }
}

/// A place in a map.
struct Cursor<'a, K, V> {
    pieces: &'a [Arc<Piece<K, V>>],
    /// In the first of them.
    entry: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(map: &'a SharedMap<K, V>) -> Self {
        Self { pieces: &map.pieces, entry: 0 }
    }

    fn peek(&self) -> Option<&'a (K, V)> {
        self.pieces.first().map(|piece| &piece.entries[self.entry])
    }

    fn step(&mut self) {
        self.entry += 1;
        if self.pieces.first().is_some_and(|piece| piece.entries.len() == self.entry) {
            self.skip_piece();
        }
    }

    fn skip_piece(&mut self) {
        self.pieces = &self.pieces[1..];
        self.entry = 0;
    }

    /// The piece whose beginning this is.
    fn beginning(&self) -> Option<&'a Arc<Piece<K, V>>> {
        self.pieces.first().filter(|_| self.entry == 0)
    }
}

struct Differences<'a, K, V> {
    these: Cursor<'a, K, V>,
    others: Cursor<'a, K, V>,
}

impl<'a, K: Ord, V: PartialEq> Differences<'a, K, V> {
    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        loop {
            if let (Some(piece), Some(other)) = (self.these.beginning(), self.others.beginning())
                && Arc::ptr_eq(piece, other)
            {
                self.these.skip_piece();
                self.others.skip_piece();
                continue;
            }
            let (key, value) = self.these.peek()?;
            let order = self.others.peek().map_or(Ordering::Less, |(other, _)| key.cmp(other));
            let same =
                order == Ordering::Equal && self.others.peek().is_some_and(|(_, other)| value == other);
            match order {
                Ordering::Greater => self.others.step(),
                Ordering::Less => self.these.step(),
                Ordering::Equal => {
                    self.these.step();
                    self.others.step();
                }
            }
            if order != Ordering::Greater && !same {
                return Some((key, value));
            }
        }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { pieces: Arc::clone(&self.pieces), len: self.len }
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
        let same = || Arc::ptr_eq(&self.pieces, &other.pieces) || self.changes_from(other).next().is_none();
        self.len == other.len && same()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Insertions and removals.
    fn edits(most: usize) -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
        vec((0..2000_u16, prop::option::weighted(0.6, any::<u8>())), 0..most)
    }

    fn edit(map: &mut SharedMap<u16, u8>, model: &mut BTreeMap<u16, u8>, edits: &[(u16, Option<u8>)]) {
        for (key, value) in edits {
            match value {
                Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
                None => assert_eq!(map.remove(key), model.remove(key)),
            }
        }
    }

    fn check(map: &SharedMap<u16, u8>, model: &BTreeMap<u16, u8>) {
        assert!(map.iter().eq(model.iter()));
        assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
        assert!(map.pieces().all(|piece| (1..=FULL).contains(&piece.entries.len())));
        let sum = |entries: &[(u16, u8)]| entries.iter().map(|(key, _)| u64::from(*key)).sum::<u64>();
        assert_eq!(
            map.pieces().map(|piece| piece.noted(sum)).sum::<u64>(),
            model.keys().map(|key| u64::from(*key)).sum::<u64>()
        );
        assert!((0..2000).all(|key| map.get(&key) == model.get(&key)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn it_is_an_ordered_map_and_copies_stay_as_they_are(first in edits(3000), second in edits(300)) {
            let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
            edit(&mut map, &mut model, &first);
            check(&map, &model);
            let (mut copy, mut model_copy) = (map.clone(), model.clone());
            edit(&mut copy, &mut model_copy, &second);
            check(&map, &model);
            check(&copy, &model_copy);
            let differ = |one: &BTreeMap<u16, u8>, other: &BTreeMap<u16, u8>| {
                let entries = one.iter().filter(|(key, value)| other.get(*key) != Some(*value));
                entries.map(|(key, value)| (*key, *value)).collect::<Vec<_>>()
            };
            let got = |one: &SharedMap<u16, u8>, other| {
                one.changes_from(other).map(|(key, value)| (*key, *value)).collect::<Vec<_>>()
            };
            prop_assert_eq!(got(&map, &copy), differ(&model, &model_copy));
            prop_assert_eq!(got(&copy, &map), differ(&model_copy, &model));
            prop_assert_eq!(map == copy, model == model_copy);
            let built: SharedMap<u16, u8> = model_copy.clone().into_iter().collect();
            prop_assert!(built == copy);
        }
    }

    /// A key that counts how often it is looked at.
    #[derive(Clone, Debug)]
    struct Counted<'a>(u32, &'a std::cell::Cell<u32>);

    impl Ord for Counted<'_> {
        fn cmp(&self, other: &Self) -> Ordering {
            self.1.set(self.1.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other) == Ordering::Equal
        }
    }

    impl Eq for Counted<'_> {}

    #[test]
    fn one_more_of_ten_thousand_is_found_without_looking_at_them() {
        let looks = std::cell::Cell::new(0);
        let before: SharedSet<Counted<'_>> = (0..10_000).map(|n| Counted(2 * n, &looks)).collect();
        let mut after = before.clone();
        looks.set(0);
        after.insert(Counted(9999, &looks), ());
        assert!(before != after);
        let come: Vec<u32> = after.changes_from(&before).map(|(key, ())| key.0).collect();
        assert_eq!((come, before.changes_from(&after).count()), (vec![9999], 0));
        assert!(looks.get() < 6 * u32::try_from(FULL).unwrap(), "{} looks", looks.get());
        after.remove(&Counted(9999, &looks));
        assert!(before == after);
    }

    #[test]
    fn what_shrinks_does_not_stay_in_pieces() {
        let mut set: SharedSet<u32> = (0..10_000).collect();
        set.retain(|key, ()| key % 100 == 0);
        assert_eq!(set.len(), 100);
        assert!(set.pieces().count() <= 100 / FEW * 2 + 2, "{}", set.pieces().count());
        assert!(set.keys().copied().eq((0..10_000).step_by(100)));
    }
}
