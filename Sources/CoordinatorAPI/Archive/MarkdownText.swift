import StrictJSON
import WireFormat

/// Text from elsewhere in a Markdown document: it stays text, whoever renders the document.
enum MarkdownText {
    /// Every character that Markdown or HTML gives a meaning, and every one that acts on what shows it, is written so that it
    /// only shows; the text stays on one line.
    static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in PrintableText.escaped(text).unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            // Also where a renderer makes links of bare addresses.
            case ":", "@": result += "&#\(scalar.value);"
            case _ where scalar.isASCII && "\\`*_{}[]()#+-.!|~$^='\"/".unicodeScalars.contains(scalar):
                result += "\\"
                result.unicodeScalars.append(scalar)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
