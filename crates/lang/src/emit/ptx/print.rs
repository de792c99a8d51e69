//! `print`: the driver's `vprintf`, which takes a format and a buffer with the arguments as C passes them.

use bullet_ops::DType;

use super::Emitter;
use super::asm::{Class, Operand, Place, put};
use crate::ir::Inst;

/// What a module that prints declares.
pub(super) const EXTERN: &str = ".extern .func (.param .b32 $r) vprintf(.param .b64 $f,.param .b64 $a);\n";

/// The buffer of a function.
const BUFFER: Operand = Operand::Name("printed", 0);

/// A constant with a text and the zero that ends it.
pub(super) fn constant(number: usize, text: &str) -> String {
    let bytes: Vec<String> = text.bytes().chain([0]).map(|byte| byte.to_string()).collect();
    let name = Operand::Name("text", number as u32);
    format!(".global .align 1 .b8 {name}[{}]={{{}}};\n", bytes.len(), bytes.join(","))
}

impl Emitter<'_> {
    /// The declaration of the buffer.
    pub(super) fn buffer(&self) -> String {
        match self.printed {
            0 => String::new(),
            bytes => format!(".local .align 8 .b8 {BUFFER}[{bytes}];\n"),
        }
    }

    pub(super) fn print(&mut self, inst: Inst, text: u32) {
        let kernel = self.kernel;
        let mut bytes = 0;
        for &arg in &kernel.inst(inst).args {
            let dtype = self.kernel.dtype(arg);
            let x = self.bits_of(arg);
            let x = match dtype {
                _ if dtype.is_float() && dtype != DType::F64 => {
                    self.asm.make(Class::Long, "cvt.f64.f32", &[x])
                }
                _ => x,
            };
            let size = if matches!(x, Operand::Reg(Class::Long, _)) { 8 } else { 4 };
            bytes = usize::next_multiple_of(bytes, size);
            let place = Place::at(BUFFER).plus(bytes);
            put!(self.asm, "st.local.b{} {place},{x};", 8 * size);
            bytes += size;
        }
        self.printed = self.printed.max(bytes.max(8));
        let number = self.first_text + self.texts.len();
        self.texts.push(kernel.text(text).to_string());
        let text = self.generic("global", Operand::Name("text", number as u32));
        let buffer = self.generic("local", BUFFER);
        put!(self.asm, "{{\n.param .b64 $f;\n.param .b64 $a;\n.param .b32 $r;");
        put!(self.asm, "st.param.b64 [$f],{text};\nst.param.b64 [$a],{buffer};");
        put!(self.asm, "call.uni ($r),vprintf,($f,$a);\n}}");
    }

    /// The address of a name, as one of no particular space.
    fn generic(&mut self, space: &str, name: Operand) -> Operand {
        let address = self.asm.make(Class::Long, "mov.u64", &[name]);
        self.asm.make(Class::Long, &format!("cvta.{space}.u64"), &[address])
    }
}
