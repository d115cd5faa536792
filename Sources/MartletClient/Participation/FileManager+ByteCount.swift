import Foundation

extension FileManager {
    /// The size of a file; 0 where there is none.
    func byteCount(atPath path: String) -> Int { (try? attributesOfItem(atPath: path)[.size] as? Int) ?? 0 }
}
