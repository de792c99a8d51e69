//! Cached blocks by the stream that used them last, and what is known of how far each stream has come.

use std::sync::Arc;

use super::classes::{COUNT, Class, class_of};
use crate::driver::{DevicePtr, Driver, EventId, StreamId};
use crate::error::{Error, Result};

/// An event that is destroyed with its last holder.
#[derive(Debug)]
pub(super) struct Marker {
    driver: Arc<dyn Driver>,
    event: EventId,
}

impl Marker {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Result<Marker> {
        Ok(Marker { event: driver.create_event(false)?, driver: Arc::clone(driver) })
    }

    pub(super) fn event(&self) -> EventId {
        self.event
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // SAFETY: this is the only owner of the event. Failing to destroy it leaks it, which harms nobody.
        let _ = unsafe { self.driver.destroy_event(self.event) };
    }
}

/// A free block.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) ptr: DevicePtr,
    /// The time of the free, by [`Lanes::clock`].
    freed: u64,
    /// Streams that used the block, besides the one it is cached under.
    pub(super) others: Option<Box<[StreamId]>>,
}

/// A free block, and what must be waited for before it is used.
#[derive(Debug)]
pub(super) struct Unready {
    /// The stream it was cached under.
    pub(super) lane: StreamId,
    pub(super) cached: Cached,
    pub(super) markers: Vec<Arc<Marker>>,
}

/// What one stream used last.
#[derive(Debug)]
struct Lane {
    stream: StreamId,
    bins: Vec<Vec<Cached>>,
    marker: Option<Arc<Marker>>,
    /// The marker was recorded behind all blocks freed before this time.
    marked: u64,
    /// The stream is known to have passed all blocks freed before this time.
    passed: u64,
}

impl Lane {
    fn new(stream: StreamId) -> Lane {
        let bins = std::iter::repeat_with(Vec::new).take(COUNT).collect();
        Lane { stream, bins, marker: None, marked: 0, passed: 0 }
    }

    /// Looks whether the stream has reached the marker. One that cannot be asked for is forgotten, and made anew when
    /// it is needed.
    fn look(&mut self, driver: &dyn Driver) {
        if self.marked > self.passed
            && let Some(marker) = &self.marker
        {
            match driver.query(marker.event()) {
                Ok(true) => self.passed = self.marked,
                Ok(false) => {}
                Err(_) => (self.marker, self.marked) = (None, self.passed),
            }
        }
    }

    /// A marker behind everything freed before `now`.
    ///
    /// # Errors
    /// The stream is being captured: a marker would become part of the graph, and who waits for it, too.
    fn mark(&mut self, driver: &Arc<dyn Driver>, now: u64) -> Result<Arc<Marker>> {
        if driver.is_capturing(self.stream) {
            return Err(Error::invalid("a stream that is being captured into a graph cannot be waited for"));
        }
        let marker = match &self.marker {
            Some(marker) => Arc::clone(marker),
            None => Arc::clone(self.marker.insert(Arc::new(Marker::new(driver)?))),
        };
        driver.record(marker.event(), self.stream)?;
        self.marked = now;
        Ok(marker)
    }
}

/// All cached blocks of a pool.
#[derive(Debug)]
pub(super) struct Lanes {
    driver: Arc<dyn Driver>,
    /// The default stream's first; then in the order they first gave something back.
    lanes: Vec<Lane>,
    /// Counts frees.
    clock: u64,
}

impl Lanes {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Lanes {
        Lanes { driver, lanes: vec![Lane::new(StreamId::DEFAULT)], clock: 0 }
    }

    fn find(&self, stream: StreamId) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.stream == stream)
    }

    fn find_or_add(&mut self, stream: StreamId) -> usize {
        self.find(stream).unwrap_or_else(|| {
            self.lanes.push(Lane::new(stream));
            self.lanes.len() - 1
        })
    }

    /// Caches a block that `stream` and `others` used, and that nobody will use but through here.
    pub(super) fn put(
        &mut self,
        stream: StreamId,
        class: Class,
        ptr: DevicePtr,
        others: Option<Box<[StreamId]>>,
    ) {
        let lane = self.find_or_add(stream);
        self.lanes[lane].bins[class.index()].push(Cached { ptr, freed: self.clock, others });
        self.clock += 1;
    }

    /// A block that `stream` may use at once.
    #[inline]
    pub(super) fn take(&mut self, stream: StreamId, class: Class) -> Option<Cached> {
        if let Some(own) = self.find(stream) {
            let bin = &mut self.lanes[own].bins[class.index()];
            if bin.last().is_some_and(|cached| cached.others.is_none()) {
                return bin.pop();
            }
        }
        if self.lanes.len() == 1 && self.lanes[0].bins[class.index()].is_empty() {
            return None;
        }
        let ahead = match self.take_passed(stream, class) {
            Ok(cached) => return Some(cached),
            Err(ahead) => ahead,
        };
        for &lane in &ahead {
            let lane = &mut self.lanes[lane];
            // A marker that is still ahead is left alone: recorded anew on a busy stream, it would never be reached.
            if lane.marked == lane.passed {
                // Without a marker the block stays where it is until memory runs out.
                let _ = lane.mark(&self.driver, self.clock);
            }
        }
        if ahead.is_empty() { None } else { self.take_passed(stream, class).ok() }
    }

    /// A block that all its users but `stream` are known to have passed; else the lanes that blocks wait for.
    fn take_passed(&mut self, stream: StreamId, class: Class) -> Result<Cached, Vec<usize>> {
        self.lanes.iter_mut().for_each(|lane| lane.look(&*self.driver));
        let mut ahead = Vec::new();
        for lane in 0..self.lanes.len() {
            for i in (0..self.lanes[lane].bins[class.index()].len()).rev() {
                let users = self.unready(stream, lane, class, i);
                if users.is_empty() {
                    return Ok(self.lanes[lane].bins[class.index()].swap_remove(i));
                }
                ahead.extend(users);
            }
        }
        Err(ahead)
    }

    /// A block that `stream` may use after it has waited for the markers. A stream that is being captured can wait for
    /// none outside, nor one outside for it.
    pub(super) fn take_unready(&mut self, stream: StreamId, class: Class) -> Result<Option<Unready>> {
        let driver = Arc::clone(&self.driver);
        if driver.is_capturing(stream) {
            return Ok(None);
        }
        // The block freed first has the shortest wait ahead.
        let captured =
            |cached: &Cached| cached.others.iter().flatten().any(|&user| driver.is_capturing(user));
        let first = |lane: &Lane| {
            let bin = &lane.bins[class.index()];
            (0..bin.len()).filter(|&i| !captured(&bin[i])).min_by_key(|&i| bin[i].freed)
        };
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| !driver.is_capturing(lane.stream));
        let candidates = lanes.filter_map(|(lane, l)| Some((lane, first(l)?)));
        let oldest = candidates.min_by_key(|&(lane, i)| self.lanes[lane].bins[class.index()][i].freed);
        let Some((lane, i)) = oldest else { return Ok(None) };
        let freed = self.lanes[lane].bins[class.index()][i].freed;
        let mut markers = Vec::new();
        for user in self.unready(stream, lane, class, i) {
            let user = &mut self.lanes[user];
            markers.push(match &user.marker {
                Some(marker) if user.marked > freed => Arc::clone(marker),
                _ => user.mark(&self.driver, self.clock)?,
            });
        }
        let lane = &mut self.lanes[lane];
        let cached = lane.bins[class.index()].swap_remove(i);
        Ok(Some(Unready { lane: lane.stream, cached, markers }))
    }

    /// The lanes that the `i`-th cached block still has to pass before `stream` may use it.
    fn unready(&mut self, stream: StreamId, lane: usize, class: Class, i: usize) -> Vec<usize> {
        let cached = &self.lanes[lane].bins[class.index()][i];
        let freed = cached.freed;
        let others: Vec<StreamId> = cached.others.iter().flatten().copied().collect();
        let mut users = vec![lane];
        users.extend(others.into_iter().map(|other| self.find_or_add(other)));
        users.retain(|&user| self.lanes[user].stream != stream && self.lanes[user].passed <= freed);
        users
    }

    /// Takes any block: the smallest that has `wanted` bytes, else the largest there is. Leaves those of streams that are
    /// being captured, which the driver could not free now.
    pub(super) fn take_any(&mut self, wanted: usize) -> Option<(StreamId, Class, Cached)> {
        let enough = class_of(wanted.max(1)).map_or(COUNT, Class::index);
        let driver = &self.driver;
        let mut lanes: Vec<&mut Lane> =
            self.lanes.iter_mut().filter(|lane| !driver.is_capturing(lane.stream)).collect();
        (enough..COUNT).chain((0..enough).rev()).find_map(|class| {
            let lane = lanes.iter_mut().find(|lane| !lane.bins[class].is_empty())?;
            let cached = lane.bins[class].pop()?;
            Some((lane.stream, Class::from_index(class), cached))
        })
    }

    /// Bytes of the largest cached block.
    pub(super) fn largest(&self) -> usize {
        (0..COUNT).rev().find(|&class| self.has(class)).map_or(0, |class| Class::from_index(class).size())
    }

    fn has(&self, class: usize) -> bool {
        self.lanes.iter().any(|lane| !lane.bins[class].is_empty())
    }

    /// Forgets a stream whose work is all done: what it had cached goes to the default stream.
    pub(super) fn retire(&mut self, stream: StreamId) {
        if stream == StreamId::DEFAULT {
            return;
        }
        let gone = self.find(stream).map(|lane| self.lanes.remove(lane));
        for (class, blocks) in gone.into_iter().flat_map(|lane| lane.bins).enumerate() {
            self.lanes[0].bins[class].extend(blocks);
        }
        for cached in self.lanes.iter_mut().flat_map(|lane| &mut lane.bins).flatten() {
            if let Some(others) = cached.others.take() {
                let left: Box<[StreamId]> = others.iter().copied().filter(|&other| other != stream).collect();
                cached.others = Some(left).filter(|left| !left.is_empty());
            }
        }
    }
}
