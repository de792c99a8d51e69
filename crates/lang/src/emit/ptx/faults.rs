//! Faults: a thread that cannot go on puts down what went wrong, as `cuda` says, and returns.
//!
//! The places where one may stop put the number of their site, the index and the shape of its array into registers, and go where
//! the function's one report stands, behind its end.

use super::Emitter;
use super::asm::{Class, Label, Operand, Place, put};
use crate::fault::{self, Site};
use crate::ir::{Inst, Value};

/// The bytes of the argument that functions with sites take.
pub(super) const ARGUMENT: u32 = 40;
/// Where in it the number of the launch's first thread is, the code of the first site, and the lengths of the grid.
const BEGIN: i64 = 8;
const FIRST: i64 = 16;
const GRID: i64 = 20;
/// Where in the cell the index is, the thread, the lengths of the grid, and the shape.
const CELL_INDEX: usize = 8;
const CELL_THREAD: usize = 24;
const CELL_GRID: usize = 32;
const CELL_SHAPE: usize = 48;

/// Where a function reports, and the registers that say what.
#[derive(Clone, Copy)]
pub(super) struct Report {
    label: Label,
    site: Operand,
    index: Operand,
    shape: [Operand; 4],
}

impl Emitter<'_> {
    /// The number of the parameter with the cell.
    pub(super) fn faults_param(&self) -> u32 {
        u32::from(self.kernel.grid) + self.kernel.params.len() as u32
    }

    /// Stops the thread if an assertion does not hold.
    pub(super) fn assert(&mut self, inst: Inst) {
        let test = self.get(self.kernel.inst(inst).args[0]);
        let site = self.sites.number(inst, 0).unwrap_or(0);
        let on = self.asm.label();
        self.asm.branch(true, test, on);
        self.stop(site, Operand::Int(0), &[]);
        self.asm.place(on);
    }

    /// Stops the thread if an index is outside of its bounds.
    pub(super) fn within(&mut self, inst: Inst) {
        let args = &self.kernel.inst(inst).args;
        let [index, low, high] = [0, 1, 2].map(|i| self.get(args[i]));
        let good = if self.kernel.as_const(args[1]).is_some_and(|low| low.is(0)) {
            self.asm.test("lt.u32", index, high)
        } else {
            let below = self.asm.test("lt.s32", index, high);
            let good = self.asm.reg(Class::Truth);
            put!(self.asm, "setp.ge.and.s32 {good},{index},{low},{below};");
            good
        };
        let site = self.sites.number(inst, 0).unwrap_or(0);
        let on = self.asm.label();
        self.asm.branch(true, good, on);
        self.stop(site, index, &[]);
        self.asm.place(on);
    }

    /// Stops the thread if an index of a memory op that is to be checked is not one of its array.
    pub(super) fn check_indices(&mut self, inst: Inst, indices: &[Value]) {
        let array = self.kernel.inst(inst).args[0];
        for (axis, &index) in indices.iter().enumerate() {
            let Some(site) = self.sites.number(inst, axis) else { continue };
            let index = self.get(index);
            let mut shape = vec![];
            let length = match self.sites.all[site as usize] {
                Site::Index { place: fault::Place::Local(count), .. } => Operand::Int(count.into()),
                _ => {
                    let ndim = self.array(array).ndim;
                    shape = (0..ndim).map(|axis| self.length(array, axis)).collect();
                    shape[axis]
                }
            };
            let good = self.asm.test("lt.u32", index, length);
            let on = self.asm.label();
            self.asm.branch(true, good, on);
            self.stop(site, index, &shape);
            self.asm.place(on);
        }
    }

    /// Goes to the report with what it says.
    fn stop(&mut self, site: u32, index: Operand, shape: &[Operand]) {
        let report = match self.fault {
            Some(report) => report,
            None => {
                let word = |this: &mut Self| this.asm.reg(Class::Word);
                let label = self.asm.label();
                let [site, index] = [(); 2].map(|()| word(self));
                let report = Report { label, site, index, shape: [(); 4].map(|()| word(self)) };
                *self.fault.insert(report)
            }
        };
        self.asm.set(report.site, "mov.b32", &[Operand::Int(site.into())]);
        self.asm.set(report.index, "mov.b32", &[index]);
        for (axis, &to) in report.shape.iter().enumerate() {
            let length = shape.get(axis).copied().unwrap_or(Operand::Int(0));
            self.asm.set(to, "mov.b32", &[length]);
        }
        put!(self.asm, "bra {};", report.label);
    }

    /// The report, if anything goes there: of the first fault since the cell's code was 0.
    pub(super) fn report(&mut self) {
        let Some(Report { label, site, index, shape }) = self.fault else { return };
        let argument = Operand::Name("", self.faults_param());
        let param = |offset: i64| Place { base: argument, offset };
        let zero = Operand::Int(0);
        self.asm.place(label);
        let cell = self.asm.load(Class::Long, "ld.param.u64", param(0));
        let cell = Place::at(self.asm.make(Class::Long, "cvta.to.global.u64", &[cell]));
        // Of many that find one, most see that there is one.
        let seen = self.asm.load(Class::Word, "ld.volatile.global.u32", cell);
        let told = self.asm.test("ne.u32", seen, zero);
        put!(self.asm, "@{told} ret;");
        let first = self.asm.load(Class::Word, "ld.param.u32", param(FIRST));
        let code = self.asm.make(Class::Word, "add.u32", &[first, site]);
        let old = self.asm.reg(Class::Word);
        put!(self.asm, "atom.global.cas.b32 {old},{cell},0,{code};");
        let told = self.asm.test("ne.u32", old, zero);
        put!(self.asm, "@{told} ret;");
        let index = self.asm.make(Class::Long, "cvt.s64.s32", &[index]);
        put!(self.asm, "st.global.s64 {},{index};", cell.plus(CELL_INDEX));
        let [block, length, place] = self.special();
        let place = self.asm.make(Class::Long, "cvt.u64.u32", &[place]);
        let thread = self.asm.make(Class::Long, "mad.wide.u32", &[block, length, place]);
        let begin = self.asm.load(Class::Long, "ld.param.u64", param(BEGIN));
        let thread = self.asm.make(Class::Long, "add.s64", &[thread, begin]);
        put!(self.asm, "st.global.s64 {},{thread};", cell.plus(CELL_THREAD));
        for (axis, length) in shape.into_iter().enumerate() {
            let grid = self.asm.load(Class::Word, "ld.param.u32", param(GRID + 4 * axis as i64));
            put!(self.asm, "st.global.u32 {},{grid};", cell.plus(CELL_GRID + 4 * axis));
            put!(self.asm, "st.global.u32 {},{length};", cell.plus(CELL_SHAPE + 4 * axis));
        }
        put!(self.asm, "ret;");
    }
}
