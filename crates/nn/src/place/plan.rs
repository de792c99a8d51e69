//! [`plan`]: which parts go to the fast device, from what they cost. A pure function.

use std::ops::Range;

use bullet_tensor::Device;
use bullet_tensor::runtime::Bytes;

use super::Placement;
use crate::error::{Error, ErrorKind, Result};

/// What a part of a model costs on one device.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cost {
    /// Bytes that stay from step to step or for the whole step: parameters, their copies in half precision, optimizer
    /// state, gradients.
    pub kept: usize,
    /// Bytes that forward keeps for backward, of one batch.
    pub saved: usize,
    /// Bytes that are used besides while this part is computed.
    pub work: usize,
    /// Seconds of forward and backward of one batch.
    pub pass: f64,
    /// Seconds of the optimizer's update.
    pub update: f64,
}

/// What one device has to give, and what the parts cost there; `None` is a part that does not fit even alone.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct DeviceCosts {
    /// Bytes that may be used.
    pub room: usize,
    /// The tables of tokens and positions.
    pub embedding: Option<Cost>,
    /// Each block.
    pub block: Option<Cost>,
    /// The last norm, the output layer and the loss.
    pub head: Option<Cost>,
}

/// What [`plan`] knows.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Costs {
    /// On the device that computes faster and has less memory.
    pub fast: DeviceCosts,
    /// On the other one.
    pub slow: DeviceCosts,
    /// Seconds to move the activations of one batch from one device to the other and their gradient back.
    pub transfer: f64,
    /// Bytes of these activations.
    pub activation: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Whether embedding and head share their weights, and so must be on one device.
    pub tied: bool,
    /// Batches of a step.
    pub rounds: usize,
}

/// Which parts are on the fast device, and what comes of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// The embedding is on the fast device.
    pub embedding: bool,
    /// The blocks on the fast device.
    pub blocks: Range<usize>,
    /// The head is on the fast device.
    pub head: bool,
    /// Number of blocks.
    pub layers: usize,
    /// Bytes that the step is predicted to take on the fast and the slow device.
    pub bytes: [usize; 2],
    /// Bytes that these devices have.
    pub room: [usize; 2],
    /// Predicted seconds of a step.
    pub seconds: f64,
}

/// The fastest placement of those that fit; where none does, the one that lacks the least memory, which may do after all,
/// with ops in parts or on the CPU.
///
/// # Errors
/// Some part fits neither device.
pub fn plan(costs: &Costs) -> Result<Plan> {
    let mut best: Option<Plan> = None;
    for candidate in candidates(costs).filter_map(|c| predict(costs, c)) {
        let better = |than: &Plan| (candidate.lacks(), candidate.seconds) < (than.lacks(), than.seconds);
        if best.as_ref().is_none_or(better) {
            best = Some(candidate);
        }
    }
    best.ok_or_else(|| {
        Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "no way to place the model: some part of it fits neither the fast device, which has {} to give, nor the slow \
                 one, which has {}; use a smaller batch, train.recompute = true or a smaller model, or raise \
                 BULLET_MEMORY_LIMIT",
                Bytes(costs.fast.room),
                Bytes(costs.slow.room)
            ),
        )
    })
}

/// What is on the fast device: embedding, blocks, head.
type Candidate = (bool, Range<usize>, bool);

/// Those with the most blocks on the fast device first: of equals the first is taken. Its blocks are the first or the last
/// ones: with slow ones before and behind there would be no fewer moves.
fn candidates(costs: &Costs) -> impl Iterator<Item = Candidate> {
    let (layers, tied) = (costs.layers, costs.tied);
    let ends = [(true, true), (true, false), (false, true), (false, false)];
    let ends = move || ends.into_iter().filter(move |(embedding, head)| !tied || embedding == head);
    let ranges = (0..=layers).rev().flat_map(move |n| [0..n, layers - n..layers]);
    ranges.flat_map(move |range| ends().map(move |(embedding, head)| (embedding, range.clone(), head)))
}

/// What comes of a candidate; `None` if a part does not fit its device even alone.
fn predict(costs: &Costs, (embedding, blocks, head): Candidate) -> Option<Plan> {
    let rounds = costs.rounds as f64;
    let (mut bytes, mut work, mut seconds) = ([0; 2], [0; 2], 0.0);
    let mut add = |on_fast: bool, count: usize, part: fn(&DeviceCosts) -> Option<Cost>| {
        let (side, device) = if on_fast { (0, &costs.fast) } else { (1, &costs.slow) };
        let cost = if count == 0 { Cost::default() } else { part(device)? };
        bytes[side] += count * (cost.kept + cost.saved);
        work[side] = work[side].max(cost.work);
        seconds += count as f64 * (rounds * cost.pass + cost.update);
        Some(())
    };
    add(embedding, 1, |d| d.embedding)?;
    add(true, blocks.len(), |d| d.block)?;
    add(false, costs.layers - blocks.len(), |d| d.block)?;
    add(head, 1, |d| d.head)?;
    // From the embedding to the first block, among blocks, and from the last block to the head.
    let some = !blocks.is_empty();
    let within = some && blocks.len() < costs.layers;
    let (first, last) = (some && blocks.start == 0, some && blocks.end == costs.layers);
    let moves = [embedding != first, within, last != head].into_iter().filter(|moved| *moved).count();
    // What is moved is there twice, and so is its gradient.
    let bytes = [0, 1].map(|side| bytes[side] + work[side] + 2 * moves * costs.activation);
    seconds += rounds * moves as f64 * costs.transfer;
    let room = [costs.fast.room, costs.slow.room];
    Some(Plan { embedding, blocks, head, layers: costs.layers, bytes, room, seconds })
}

impl Plan {
    /// Bytes that the devices lack. Some are set aside: blocks of memory are larger than what is asked for, and may lie
    /// free between others.
    fn lacks(&self) -> usize {
        let lacks = |(bytes, room): (usize, usize)| (bytes + bytes / 8).saturating_sub(room);
        self.bytes.into_iter().zip(self.room).map(lacks).sum()
    }

    /// Whether it is predicted to fit.
    pub fn fits(&self) -> bool {
        self.lacks() == 0
    }

    /// The placement that this is on these devices.
    pub fn placement(&self, fast: &Device, slow: &Device) -> Placement {
        let device = |on_fast| if on_fast { fast } else { slow }.clone();
        Placement {
            embedding: device(self.embedding),
            blocks: (0..self.layers).map(|i| device(self.blocks.contains(&i))).collect(),
            head: device(self.head),
        }
    }

    /// What it means, for the user: where the parts are, memory, predicted time.
    pub fn describe(&self, fast: &Device, slow: &Device) -> String {
        let side = |side: usize, device: &Device| {
            let parts = self.parts_on(side == 0)?;
            let (bytes, room) = (Bytes(self.bytes[side]), Bytes(self.room[side]));
            Some(format!("{parts} on {device} (about {bytes} of {room})"))
        };
        let sides: Vec<String> = [side(0, fast), side(1, slow)].into_iter().flatten().collect();
        let time = format!("about {:.1} ms a step", self.seconds * 1e3);
        let tight =
            if self.fits() { "" } else { "; that is more than fits, so some steps may be slow or fail" };
        format!("{}; {time}{tight}", sides.join(", "))
    }

    /// The parts on the fast or the slow device in words, if there are any.
    fn parts_on(&self, fast: bool) -> Option<String> {
        let Range { start, end } = self.blocks;
        let blocks = match fast {
            true => start..end,
            false if start == 0 => end..self.layers,
            false => 0..start,
        };
        if self.embedding == fast && self.head == fast && blocks.len() == self.layers {
            return Some("the whole model".into());
        }
        let mut parts: Vec<String> = Vec::new();
        parts.extend((self.embedding == fast).then(|| "embedding".to_string()));
        parts.extend(match blocks.len() {
            0 => None,
            1 => Some(format!("block {}", blocks.end)),
            _ => Some(format!("blocks {} to {}", blocks.start + 1, blocks.end)),
        });
        parts.extend((self.head == fast).then(|| "head".to_string()));
        let last = parts.pop()?;
        Some(if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn part(bytes: usize, ms: f64) -> Option<Cost> {
        Some(Cost { kept: bytes / 2, saved: bytes / 2, work: 0, pass: ms / 1e3, update: 0.0 })
    }

    /// Eight blocks of 100 MiB that are ten times faster on the fast device, and ends of 50.
    fn costs(room: usize) -> Costs {
        let device = |room, ms: f64| DeviceCosts {
            room: room * MIB,
            embedding: part(50 * MIB, 0.2 * ms),
            block: part(100 * MIB, ms),
            head: part(50 * MIB, ms),
        };
        Costs {
            fast: device(room, 1.0),
            slow: device(1 << 20, 10.0),
            transfer: 1e-3,
            activation: MIB,
            layers: 8,
            tied: false,
            rounds: 1,
        }
    }

    fn what(costs: &Costs) -> (bool, Range<usize>, bool) {
        let plan = plan(costs).unwrap();
        (plan.embedding, plan.blocks, plan.head)
    }

    #[test]
    fn what_fits_and_is_faster_is_all_on_the_fast_device() {
        let found = plan(&costs(2000)).unwrap();
        assert_eq!((found.embedding, found.blocks.clone(), found.head), (true, 0..8, true));
        assert_eq!(found.bytes, [900 * MIB, 0]);
        assert!((found.seconds - 9.2e-3).abs() < 1e-9 && found.fits());
        // An eighth is set aside.
        assert_eq!(what(&costs(1013)).1, 0..8);
        assert_ne!(what(&costs(1012)), (true, 0..8, true));
    }

    #[test]
    fn as_much_as_fits_is_on_the_fast_device_with_few_moves() {
        // Room for four blocks and the head: one move, behind the slow blocks.
        assert_eq!(what(&costs(560)), (false, 4..8, true));
        // The head gains as much as a block in half the memory, the embedding little.
        assert_eq!(what(&costs(470)), (true, 0..3, true));
        assert_eq!(what(&costs(400)), (false, 5..8, true));
        assert_eq!(what(&costs(70)), (false, 0..0, true));
        let found = plan(&costs(560)).unwrap();
        assert_eq!(found.bytes, [452 * MIB, 452 * MIB]);
        assert!((found.seconds - (2e-3 + 40e-3 + 4e-3 + 1e-3 + 1e-3)).abs() < 1e-9, "{}", found.seconds);
    }

    #[test]
    fn a_device_that_is_not_faster_or_too_far_is_not_used() {
        assert_eq!(what(&Costs { transfer: 1.0, ..costs(560) }), (false, 0..0, false));
        let mut even = costs(560);
        even.fast = DeviceCosts { room: 560 * MIB, ..even.slow };
        assert_eq!(what(&even), (false, 0..0, false));
        assert_eq!(what(&costs(10)), (false, 0..0, false));
        let none = DeviceCosts { room: 560 * MIB, ..DeviceCosts::default() };
        assert_eq!(what(&Costs { fast: none, ..costs(560) }), (false, 0..0, false));
    }

    #[test]
    fn tied_ends_stay_together() {
        for room in (10..1100).step_by(7) {
            let (embedding, blocks, head) = what(&Costs { tied: true, ..costs(room) });
            assert_eq!(embedding, head, "{room}: {blocks:?}");
        }
        assert_eq!(what(&Costs { tied: true, ..costs(560) }), (true, 0..3, true));
        assert_eq!(what(&Costs { tied: true, ..costs(120) }), (true, 0..0, true));
    }

    #[test]
    fn every_plan_fits_and_more_room_is_never_slower() {
        let mut last = f64::INFINITY;
        for room in 10..1100 {
            let found = plan(&costs(room)).unwrap();
            assert!(found.fits() && found.bytes[0] <= room * MIB, "{room}: {found:?}");
            assert!(found.seconds <= last + 1e-12, "{room}: {found:?}");
            last = found.seconds;
        }
    }

    #[test]
    fn workspace_counts_once_and_rounds_multiply_passes_only() {
        let mut costs = Costs { rounds: 3, ..costs(2000) };
        let block = costs.fast.block.as_mut().unwrap();
        (block.work, block.update) = (70 * MIB, 0.5e-3);
        let found = plan(&costs).unwrap();
        assert_eq!(found.bytes[0], 970 * MIB);
        assert!((found.seconds - (3.0 * 9.2e-3 + 8.0 * 0.5e-3)).abs() < 1e-9);
    }

    #[test]
    fn where_nothing_fits_the_least_is_lacking() {
        let mut small = costs(300);
        small.slow.room = 400 * MIB;
        let found = plan(&small).unwrap();
        assert!(!found.fits() && found.blocks.len() >= 2, "{found:?}");
        assert!(found.describe(&Device::cpu(), &Device::cpu()).contains("more than fits"));
        small.fast.head = None;
        small.slow.head = None;
        let e = plan(&small).unwrap_err();
        assert_eq!(e.kind, ErrorKind::OutOfMemory);
        assert!(e.message.contains("300.0 MiB") && e.message.contains("train.recompute"), "{e}");
    }

    #[test]
    fn plans_read_well() {
        let cpu = Device::cpu();
        let text = |costs: &Costs| plan(costs).unwrap().describe(&cpu, &cpu);
        assert_eq!(
            text(&costs(560)),
            "blocks 5 to 8 and head on cpu (about 452.0 MiB of 560.0 MiB), embedding and blocks 1 to 4 on cpu (about 452.0 \
             MiB of 1.0 TiB); about 48.0 ms a step"
        );
        assert!(
            text(&costs(2000))
                .starts_with("the whole model on cpu (about 900.0 MiB of 2.0 GiB); about 9.2 ms")
        );
        let one = Plan { embedding: false, blocks: 7..8, head: false, ..plan(&costs(560)).unwrap() };
        let text = one.describe(&cpu, &cpu);
        assert!(text.starts_with("block 8 on cpu"), "{text}");
        assert!(text.contains("embedding, blocks 1 to 7 and head on cpu"), "{text}");
    }
}
