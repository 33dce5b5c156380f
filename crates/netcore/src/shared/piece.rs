//! The pieces that copies of a map share.

use std::any::Any;
use std::borrow::Borrow;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Most entries of a piece: a change copies those beside it.
pub(super) const ENTRIES: usize = 16;
/// Most pieces in one. A change takes hold of those beside the ones on its way, and whoever notes something asks
/// them, each at a place in memory that nobody may have touched for a while: few are best.
pub(super) const PIECES: usize = 8;
/// How much a piece that grows takes in advance: many maps have a single entry for ever.
const ROOM: usize = 4;

/// Some entries in order, or pieces with them.
pub struct Piece<K, V> {
    pub(super) below: Below<K, V>,
    notes: Notes,
}

/// What is in a piece; there is always something.
#[derive(Clone)]
pub(super) enum Below<K, V> {
    Entries(Vec<(K, V)>),
    Pieces(Vec<Child<K, V>>),
}

/// A piece in another one.
pub(super) struct Child<K, V> {
    /// No key in it is greater; those in the next one all are.
    last: K,
    pub(super) piece: Arc<Piece<K, V>>,
}

impl<K: Clone, V> Clone for Child<K, V> {
    fn clone(&self) -> Self {
        Self { last: self.last.clone(), piece: Arc::clone(&self.piece) }
    }
}

impl<K: Clone, V: Clone> Clone for Piece<K, V> {
    fn clone(&self) -> Self {
        Self::new(self.below.clone())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Piece<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.below {
            Below::Entries(entries) => f.debug_list().entries(entries).finish(),
            Below::Pieces(_) => f.debug_list().entries(self.pieces()).finish(),
        }
    }
}

/// What was worked out from a piece, one value of each type.
#[derive(Default)]
struct Notes(OnceLock<Box<Noted<dyn Any + Send + Sync>>>);

struct Noted<T: ?Sized> {
    others: Notes,
    value: T,
}

impl Notes {
    fn get<T: Any + Send + Sync>(&self, work_out: impl Fn() -> T) -> &T {
        let note = || -> Box<Noted<dyn Any + Send + Sync>> {
            Box::new(Noted { others: Self::default(), value: work_out() })
        };
        let mut notes = self;
        loop {
            let noted = notes.0.get_or_init(note);
            match noted.value.downcast_ref::<T>() {
                Some(value) => return value,
                None => notes = &noted.others,
            }
        }
    }
}

impl<K, V> Piece<K, V> {
    fn new(below: Below<K, V>) -> Self {
        Self { below, notes: Notes::default() }
    }

    pub(super) fn of_one(key: K, value: V) -> Self {
        Self::new(Below::Entries(vec![(key, value)]))
    }

    /// What `work_out` makes of it: worked out once for all copies that share it. There is one way to work
    /// out a value of a type; it may ask the pieces in this one for theirs, so that after a change only
    /// what is on its way is worked out anew.
    pub fn noted<T: Any + Send + Sync>(&self, work_out: impl Fn(&Self) -> T) -> &T {
        self.notes.get(|| work_out(self))
    }

    /// Its entries, if they are not in pieces.
    pub fn entries(&self) -> Option<&[(K, V)]> {
        match &self.below {
            Below::Entries(entries) => Some(entries),
            Below::Pieces(_) => None,
        }
    }

    /// The pieces in it, in order; none if it has the entries itself.
    pub fn pieces(&self) -> impl Iterator<Item = &Self> {
        let pieces = match &self.below {
            Below::Entries(_) => &[][..],
            Below::Pieces(pieces) => pieces,
        };
        pieces.iter().map(|child| &*child.piece)
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match &self.below {
            Below::Entries(entries) => search(entries, key).ok().map(|at| &entries[at].1),
            Below::Pieces(pieces) => pieces.get(place(pieces, key))?.piece.get(key),
        }
    }

    /// How far its entries are.
    pub(super) fn height(&self) -> usize {
        match &self.below {
            Below::Entries(_) => 0,
            Below::Pieces(pieces) => 1 + pieces.first().map_or(0, |child| child.piece.height()),
        }
    }

    /// Most that it may have itself.
    pub(super) fn room(&self) -> usize {
        match &self.below {
            Below::Entries(_) => ENTRIES,
            Below::Pieces(_) => PIECES,
        }
    }

    /// How many there are of what it has itself.
    fn len(&self) -> usize {
        match &self.below {
            Below::Entries(entries) => entries.len(),
            Below::Pieces(pieces) => pieces.len(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Piece<K, V> {
    /// Two that are next to each other.
    pub(super) fn of_two(first: Arc<Self>, second: Arc<Self>) -> Self {
        let child = |piece: Arc<Self>| Child { last: piece.greatest().clone(), piece };
        Self::new(Below::Pieces(vec![child(first), child(second)]))
    }

    fn greatest(&self) -> &K {
        match &self.below {
            Below::Entries(entries) => &entries[entries.len() - 1].0,
            Below::Pieces(pieces) => pieces[pieces.len() - 1].piece.greatest(),
        }
    }

    /// What is in it, for a change: what was noted no longer holds.
    fn change(&mut self) -> &mut Below<K, V> {
        self.notes = Notes::default();
        &mut self.below
    }

    /// Puts an entry in: the value that its key had before, and the second part of what has become too much
    /// for one piece.
    pub(super) fn insert(&mut self, key: K, value: V) -> (Option<V>, Option<Arc<Self>>) {
        match self.change() {
            Below::Entries(entries) => match search(entries, &key) {
                Ok(at) => (Some(std::mem::replace(&mut entries[at].1, value)), None),
                Err(at) => {
                    let rest = put_in(entries, at, (key, value), ENTRIES);
                    (None, rest.map(|rest| Arc::new(Self::new(Below::Entries(rest)))))
                }
            },
            Below::Pieces(pieces) => {
                // What comes after the last goes into the last piece.
                let at = place(pieces, &key).min(pieces.len() - 1);
                let child = &mut pieces[at];
                if child.last < key {
                    child.last.clone_from(&key);
                }
                let (old, rest) = Arc::make_mut(&mut child.piece).insert(key, value);
                let rest = rest.and_then(|piece| {
                    let first = &mut pieces[at];
                    let last = std::mem::replace(&mut first.last, first.piece.greatest().clone());
                    put_in(pieces, at + 1, Child { last, piece }, PIECES)
                });
                (old, rest.map(|rest| Arc::new(Self::new(Below::Pieces(rest)))))
            }
        }
    }

    /// The value of a key to change.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.change() {
            Below::Entries(entries) => search(entries, key).ok().map(|at| &mut entries[at].1),
            Below::Pieces(pieces) => {
                let at = place(pieces, key);
                Arc::make_mut(&mut pieces.get_mut(at)?.piece).get_mut(key)
            }
        }
    }

    /// Takes an entry out; its value. There may be nothing left.
    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self.change() {
            Below::Entries(entries) => search(entries, key).ok().map(|at| entries.remove(at).1),
            Below::Pieces(pieces) => {
                let at = place(pieces, key);
                let piece = Arc::make_mut(&mut pieces.get_mut(at)?.piece);
                let value = piece.remove(key);
                if piece.len() == 0 {
                    pieces.remove(at);
                } else {
                    join_few(pieces, at);
                }
                value
            }
        }
    }

    /// The piece that all of it is in.
    pub(super) fn only_piece(&self) -> Option<Arc<Self>> {
        match &self.below {
            Below::Pieces(pieces) if pieces.len() == 1 => {
                pieces.first().map(|child| Arc::clone(&child.piece))
            }
            _ => None,
        }
    }

    /// Takes in what the next one has, which is as far from the entries.
    fn take_in(&mut self, next: &Self) {
        match (self.change(), &next.below) {
            (Below::Entries(entries), Below::Entries(next)) => entries.extend_from_slice(next),
            (Below::Pieces(pieces), Below::Pieces(next)) => pieces.extend_from_slice(next),
            _ => unreachable!("all entries are as far from the first piece"),
        }
    }
}

/// Makes one of a piece and one of its neighbours, if both are small.
fn join_few<K: Ord + Clone, V: Clone>(pieces: &mut Vec<Child<K, V>>, at: usize) {
    let few = |first: &usize| match pieces.get(*first..first + 2) {
        Some([one, next]) => one.piece.len() + next.piece.len() <= one.piece.room() / 2,
        _ => false,
    };
    if let Some(first) = [at.checked_sub(1), Some(at)].into_iter().flatten().find(few) {
        let next = pieces.remove(first + 1);
        Arc::make_mut(&mut pieces[first].piece).take_in(&next.piece);
        pieces[first].last = next.last;
    }
}

/// The place of a key among entries, or where it would be.
pub(super) fn search<K: Borrow<Q>, V, Q: Ord + ?Sized>(entries: &[(K, V)], key: &Q) -> Result<usize, usize> {
    entries.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

/// Which of the pieces a key is in, if it is in one; their number if it comes after all.
pub(super) fn place<K: Borrow<Q>, V, Q: Ord + ?Sized>(pieces: &[Child<K, V>], key: &Q) -> usize {
    pieces.partition_point(|child| child.last.borrow() < key)
}

/// Puts something in; the second part if it is more than `most` then.
fn put_in<T>(all: &mut Vec<T>, at: usize, one: T, most: usize) -> Option<Vec<T>> {
    if all.len() == all.capacity() {
        all.reserve_exact(ROOM);
    }
    all.insert(at, one);
    if all.len() <= most {
        return None;
    }
    // What comes in order leaves full pieces behind.
    let rest = all.split_off(if at + 1 == all.len() { at } else { all.len() / 2 });
    all.shrink_to_fit();
    Some(rest)
}
