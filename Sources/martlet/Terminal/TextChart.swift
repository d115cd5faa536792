/// Charts of one line of text.
enum TextChart {
    private static let steps: [Character] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]

    /// A curve as bars of eight heights, the last values of it where there are more than `width`.
    static func sparkline(_ values: [Double], width: Int) -> String {
        let finite = values.filter(\.isFinite)
        guard let low = finite.min(), let high = finite.max(), width > 0 else { return "" }
        return String(
            resampled(finite, count: width).map { value in
                let share = high > low ? (value - low) / (high - low) : 0.5
                return steps[min(steps.count - 1, Int(share * Double(steps.count)))]
            }
        )
    }

    /// Means of equal parts, so that a long curve fits.
    static func resampled(_ values: [Double], count: Int) -> [Double] {
        guard values.count > count else { return values }
        return (0..<count).map { index in
            let part = values[(index * values.count / count)..<((index + 1) * values.count / count)]
            return part.reduce(0, +) / Double(part.count)
        }
    }

    /// A bar that fills from the left in eighths of a character.
    static func bar(_ share: Double, width: Int) -> String {
        let eighths = Int((max(0, min(1, share.isFinite ? share : 0)) * Double(width * 8)).rounded())
        let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"]
        let full = String(repeating: "█", count: eighths / 8) + partial[eighths % 8]
        return full + String(repeating: "░", count: max(0, width - full.count))
    }
}
