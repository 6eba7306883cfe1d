//! The definition of a convolution, in f64 and in the layout of ONNX: what every algorithm is tested against.
//! It shares no code and no layout with them.

/// A convolution of one image.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// `[channel][height][width]`.
    pub input: &'a [f32],
    /// Channels, height and width of the input.
    pub shape: [usize; 3],
    /// `[output channel][channel of the group][tap row][tap column]`.
    pub weights: &'a [f32],
    /// Number of output channels.
    pub outputs: usize,
    /// Groups of channels convolved separately.
    pub groups: usize,
    /// Taps, vertical and horizontal.
    pub kernel: [usize; 2],
    /// Distance of output pixels in the input, vertical and horizontal.
    pub stride: [usize; 2],
    /// Distance of taps in the input, vertical and horizontal.
    pub dilation: [usize; 2],
    /// Zeros above and left of the input.
    pub pads: [usize; 2],
}

impl Reference<'_> {
    /// The sum at one output, and the sum of the magnitudes of its terms, which error bounds are relative to.
    pub fn sum(&self, output: usize, y: usize, x: usize) -> (f64, f64) {
        let [channels, height, width] = self.shape;
        let group_inputs = channels / self.groups;
        let group = output / (self.outputs / self.groups);
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for channel in 0..group_inputs {
            for tap_y in 0..self.kernel[0] {
                for tap_x in 0..self.kernel[1] {
                    let row = (y * self.stride[0] + tap_y * self.dilation[0]) as i64 - self.pads[0] as i64;
                    let column = (x * self.stride[1] + tap_x * self.dilation[1]) as i64 - self.pads[1] as i64;
                    let inside = (0..height as i64).contains(&row) && (0..width as i64).contains(&column);
                    if !inside {
                        continue;
                    }
                    let plane = group * group_inputs + channel;
                    let value = self.input[(plane * height + row as usize) * width + column as usize];
                    let weight = self.weights[((output * group_inputs + channel) * self.kernel[0] + tap_y)
                        * self.kernel[1]
                        + tap_x];
                    let term = f64::from(value) * f64::from(weight);
                    sum += term;
                    magnitude += term.abs();
                }
            }
        }
        (sum, magnitude)
    }
}
