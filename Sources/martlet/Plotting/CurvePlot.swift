import Foundation
import WireFormat

/// Curves of runs by round, as an SVG file that needs nothing else: the same input gives the same bytes.
struct CurvePlot {
    /// One run under the name it has in the legend.
    struct Line {
        var name: String
        var points: [String: [(x: Double, y: Double)]]

        init(name: String, curves: RunCurves) {
            let judged = curves.curve(RunCurves.accuracyNames) ?? curves.curve(RunCurves.lossNames)
            self.name = name + (judged?.note ?? "")
            let rounds = curves.committed
            func byRound(_ value: (RoundView) -> Double?) -> [(x: Double, y: Double)] {
                rounds.compactMap { round in value(round).map { (Double(round.number), $0) } }
            }
            points = [
                "accuracy": (curves.curve(RunCurves.accuracyNames)?.points ?? []).map { (Double($0.round), $0.value) },
                "loss": (curves.curve(RunCurves.lossNames)?.points ?? []).map { (Double($0.round), $0.value) },
                "epsilon": byRound(\.epsilon), "bytes": byRound { $0.bytesUp.map(Double.init) },
                "seconds": byRound(\.seconds),
            ]
        }
    }

    private static let bytes = "bytes"
    static let panelNames = ["accuracy", "loss", "epsilon", "bytes", "seconds"]
    private static let titles = [
        "accuracy": "Accuracy", "loss": "Loss", "epsilon": "Privacy spent (ε)", "bytes": "Uploaded per round",
        "seconds": "Seconds per round",
    ]
    /// Told apart by people who see fewer colours, and by their dashes.
    private static let colors = [
        "#0b6655", "#b0470a", "#6a3a9e", "#1b5c9c", "#8a6a00", "#a8231d", "#3d6b1f", "#555555",
    ]
    private static let dashes = ["", "7 4", "2 4", "9 3 2 3", "5 5", "1 3", "12 4", "4 2"]

    var title: String?
    var lines: [Line]
    var panels: [String]

    private let panelWidth = 460.0
    private let panelHeight = 250.0

    var svg: String {
        let columns = panels.count == 1 ? 1 : 2
        let rows = (panels.count + columns - 1) / columns
        let top = (title == nil ? 12.0 : 46.0) + (lines.count > 1 ? 26 : 0)
        let width = Double(columns) * panelWidth + 20
        let height = top + Double(rows) * panelHeight + 10
        let description = lines.map(\.name).joined(separator: ", ")
        var text = """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(plain(width)) \(plain(height))" \
            width="\(plain(width))" height="\(plain(height))" role="img" font-family="system-ui, sans-serif">
            <title>\(escape(title ?? "Training curves"))</title>
            <desc>\(escape(panels.joined(separator: ", "))) by round of \(escape(description))</desc>
            <rect width="100%" height="100%" fill="#ffffff"/>

            """
        if let title {
            text +=
                "<text x=\"20\" y=\"32\" font-size=\"20\" font-weight=\"600\" fill=\"#18211e\">\(escape(title))</text>\n"
        }
        if lines.count > 1 { text += legend(y: top - 12) }
        for (index, name) in panels.enumerated() {
            let x = 10 + Double(index % columns) * panelWidth
            let y = top + Double(index / columns) * panelHeight
            text += "<g transform=\"translate(\(plain(x)) \(plain(y)))\">\n\(panel(name))</g>\n"
        }
        return text + "</svg>\n"
    }

    private func legend(y: Double) -> String {
        var text = ""
        var x = 20.0
        for (index, line) in lines.enumerated() {
            text += stroke(
                index,
                "<line x1=\"\(plain(x))\" x2=\"\(plain(x + 26))\" y1=\"\(plain(y))\" y2=\"\(plain(y))\""
            )
            text += "<text x=\"\(plain(x + 32))\" y=\"\(plain(y + 4))\" font-size=\"13\" fill=\"#18211e\">"
            text += "\(escape(line.name))</text>\n"
            x += 58 + Double(Terminal.columns(line.name)) * 7.5
        }
        return text
    }

    private func panel(_ name: String) -> String {
        let curves = lines.map { ($0.points[name] ?? []).filter { $0.x.isFinite && $0.y.isFinite } }
        var text = "<text x=\"54\" y=\"18\" font-size=\"14\" font-weight=\"600\" fill=\"#18211e\">"
        text += "\(Self.titles[name] ?? name)</text>\n"
        let all = curves.flatMap { $0 }
        guard let first = all.first else {
            return text + "<text x=\"54\" y=\"120\" font-size=\"13\" fill=\"#55615b\">nothing was measured</text>\n"
        }
        var box = Frame(low: first.y, high: first.y, from: first.x, to: first.x)
        for point in all {
            box.low = min(box.low, point.y)
            box.high = max(box.high, point.y)
            box.from = min(box.from, point.x)
            box.to = max(box.to, point.x)
        }
        if !["accuracy", MetricSums.lossName].contains(name) { box.low = min(0, box.low) }
        box.widen()
        for value in Ticks.between(box.low, box.high, wanted: 5) {
            let y = box.y(value)
            text += "<line x1=\"54\" x2=\"446\" y1=\"\(plain(y))\" y2=\"\(plain(y))\" stroke=\"#dfe1da\"/>"
            text += "<text x=\"48\" y=\"\(plain(y + 4))\" font-size=\"11\" text-anchor=\"end\" fill=\"#55615b\">"
            text += "\(label(value, name))</text>\n"
        }
        for value in Ticks.between(box.from, box.to, wanted: 6) where value == value.rounded() {
            text += "<text x=\"\(plain(box.x(value)))\" y=\"236\" font-size=\"11\" text-anchor=\"middle\" "
            text += "fill=\"#55615b\">\(Int(value))</text>\n"
        }
        text += "<text x=\"446\" y=\"248\" font-size=\"11\" text-anchor=\"end\" fill=\"#55615b\">round</text>\n"
        text += "<line x1=\"54\" x2=\"446\" y1=\"220\" y2=\"220\" stroke=\"#7d8983\"/>\n"
        for (index, points) in curves.enumerated() where !points.isEmpty {
            let path = points.enumerated().map { place, point in
                "\(place == 0 ? "M" : "L")\(plain(box.x(point.x))) \(plain(box.y(point.y)))"
            }
            text += stroke(index, "<path d=\"\(path.joined())\" fill=\"none\" stroke-linejoin=\"round\"")
            let last = points[points.count - 1]
            text += "<circle cx=\"\(plain(box.x(last.x)))\" cy=\"\(plain(box.y(last.y)))\" r=\"3.5\" "
            text += "fill=\"\(Self.colors[index % 8])\"/>\n"
        }
        return text
    }

    private func stroke(_ index: Int, _ element: String) -> String {
        let dash = Self.dashes[index % 8]
        return element + " stroke=\"\(Self.colors[index % 8])\" stroke-width=\"2\""
            + (dash.isEmpty ? "" : " stroke-dasharray=\"\(dash)\"") + "/>\n"
    }

    private func label(_ value: Double, _ name: String) -> String {
        if name == Self.bytes { return Readable.bytes(Int(max(0, min(value, 1e18)))) }
        return Ticks.text(value)
    }

    private func plain(_ value: Double) -> String {
        let text = Readable.rounded(value, 2)
        return text.hasSuffix(".00") ? String(text.dropLast(3)) : text
    }

    private func escape(_ text: String) -> String {
        Terminal.printable(text).replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
            .replacing("\"", with: "&quot;")
    }

    /// Values to places in a panel.
    private struct Frame {
        var low: Double
        var high: Double
        var from: Double
        var to: Double

        mutating func widen() {
            if high == low { high = low + max(abs(low), 1) * 0.1 }
            if to == from { to = from + 1 }
            let margin = (high - low) * 0.05
            if low != 0 { low -= margin }
            high += margin
        }

        func x(_ value: Double) -> Double { 54 + (value - from) / (to - from) * 392 }
        func y(_ value: Double) -> Double { 220 - (value - low) / (high - low) * 190 }
    }
}

/// Round numbers on an axis.
enum Ticks {
    static func between(_ low: Double, _ high: Double, wanted: Int) -> [Double] {
        guard high > low, (high - low).isFinite else { return [low] }
        let raw = (high - low) / Double(wanted)
        let unit = pow(10, (log10(raw)).rounded(.down))
        let step = [1.0, 2, 5, 10].map { $0 * unit }.first { $0 >= raw * 0.999 } ?? unit
        var result: [Double] = []
        var index = (low / step).rounded(.up)
        while index * step <= high + step * 1e-9 && result.count < 100 {
            result.append(index == 0 ? 0 : index * step)
            index += 1
        }
        return result
    }

    static func text(_ value: Double) -> String {
        if value == 0 { return "0" }
        if abs(value) >= 1e6 || abs(value) < 1e-3 { return String(format: "%.0e", value) }
        let text = Readable.rounded(value, abs(value) >= 100 ? 0 : 3)
        guard text.contains(".") else { return text }
        var trimmed = Substring(text)
        while trimmed.hasSuffix("0") { trimmed = trimmed.dropLast() }
        return String(trimmed.hasSuffix(".") ? trimmed.dropLast() : trimmed)
    }
}
