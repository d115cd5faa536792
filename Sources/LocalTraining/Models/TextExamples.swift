import StrictJSON
import Tensors

/// How texts become windows of tokens, and which targets count.
package struct TextSettings: Equatable, Sendable {
    /// T, the most targets of a window.
    var windowLength: Int
    /// Whether texts are streams: without `<eos>`, in windows that follow each other.
    var isStream: Bool
    /// Whether a window starts from the state in which the window before it ended.
    var carriesState: Bool
    /// Whether `<unk>` is trained as a target; otherwise it is masked.
    var trainsUnknown: Bool

    /// How `<unk>` is treated as a target.
    private enum UnknownTarget: String, CaseIterable {
        case mask, train
    }

    /// The defaults for a tokeniser.
    init(tokenizer: any Tokenizer) {
        windowLength = Self.usualLength(tokenizer)
        (isStream, carriesState, trainsUnknown) = (false, false, false)
    }

    private static func usualLength(_ tokenizer: any Tokenizer) -> Int { tokenizer.kind == .word ? 20 : 80 }

    /// Reads `window`, `stream`, `carry_state` and `unk_target`.
    init(_ fields: FieldReader, tokenizer: any Tokenizer, lengthLimit: Int?) {
        let usual = Self.usualLength(tokenizer)
        windowLength = fields.integer(
            "window",
            default: min(usual, lengthLimit ?? usual),
            in: 1...min(4096, lengthLimit ?? 4096)
        )
        isStream = fields.boolean("stream", default: false)
        carriesState = fields.boolean("carry_state", default: false)
        trainsUnknown = fields.choice("unk_target", default: UnknownTarget.mask) == .train
        if carriesState && lengthLimit != nil {
            fields.report("carry_state", "is for recurrent models only")
        }
    }
}

/// A device's texts as windows of at most T + 1 tokens, of which the last T are targets.
///
/// A record is `<bos> tokens <eos>`, a document of a stream `<bos> tokens`. A longer text continues in another window, whose first
/// input is the last target of the window before.
struct TextExamples: Sendable {
    struct Window: Sendable {
        var ids: [Int]
        /// The number of UTF-8 bytes of its targets; exact in the sum over a text.
        var byteCount: Int
        /// Whether it continues the text of the window before it.
        var goesOn: Bool
    }

    let settings: TextSettings
    let specials: SpecialTokens
    private(set) var windows: [Window] = []

    init(texts: [String], tokenizer: any Tokenizer, settings: TextSettings) {
        self.settings = settings
        specials = tokenizer.specials
        for text in texts {
            var ids = [specials.begin] + tokenizer.encode(text)
            guard ids.count > 1 else { continue }
            if !settings.isStream { ids.append(specials.end) }
            let byteCount = text.utf8.count
            var start = 0
            while start + 1 < ids.count {
                let end = min(ids.count, start + settings.windowLength + 1)
                let bytes = byteCount * (end - 1) / (ids.count - 1) - byteCount * start / (ids.count - 1)
                windows.append(Window(ids: Array(ids[start..<end]), byteCount: bytes, goesOn: start > 0))
                start = end - 1
            }
        }
    }

    /// The windows of the given examples side by side, padded at their ends; `continues` says which rows keep their state.
    func batch(_ examples: some Collection<Int>, continues: [Bool] = []) -> TokenBatch {
        let rows = examples.count
        let steps = max(1, (examples.map { windows[$0].ids.count }.max() ?? 2) - 1)
        var inputs = [Int](repeating: specials.pad, count: steps * rows)
        var targets = [Int](repeating: -1, count: steps * rows)
        for (row, example) in examples.enumerated() {
            let ids = windows[example].ids
            for step in 0..<(ids.count - 1) {
                inputs[step * rows + row] = ids[step]
                if settings.trainsUnknown || ids[step + 1] != specials.unknown {
                    targets[step * rows + row] = ids[step + 1]
                }
            }
        }
        return TokenBatch(steps: steps, rows: rows, inputs: inputs, targets: targets, continues: continues)
    }

    /// The metrics of a pass.
    ///
    /// Every target counts in `tokens`, also a masked one.
    func metrics(_ measure: LossMeasure, _ examples: some Collection<Int>) -> TrainingMetrics {
        var metrics = TrainingMetrics()
        metrics.nll = measure.nll
        metrics.lossTokens = measure.tokens
        metrics.hit1 = measure.hit1
        metrics.hit3 = measure.hit3
        for example in examples {
            let targets = windows[example].ids.dropFirst()
            metrics.tokens += targets.count
            metrics.inVocabulary += targets.reduce(0) { $0 + ($1 == specials.unknown ? 0 : 1) }
            metrics.bytes += windows[example].byteCount
        }
        return metrics
    }

    /// The share of the most frequent ordinary target: the recall of always guessing it.
    var mostFrequentShare: Double {
        var counts: [Int: Int] = [:]
        var total = 0
        for window in windows {
            for id in window.ids.dropFirst() { counts[id, default: 0] += 1 }
            total += window.ids.count - 1
        }
        let most = counts.filter { specials.ordinary.contains($0.key) }.values.max() ?? 0
        return total > 0 ? Double(most) / Double(total) : 0
    }
}
