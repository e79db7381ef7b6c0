#!/usr/bin/env node
/**
 * The command that npm starts. Plain JavaScript, in what Node 14 reads already: a Node that is too old runs TypeScript
 * not at all, and says so in words about file extensions. Everything else is in main.ts.
 */
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)

// As "engines" in package.json; a test compares them.
if (major >= 26 || (major === 24 && minor >= 15)) {
  void import('./main.ts')
} else {
  process.stderr.write(
    `entrepot needs Node 24.15 or later, or 26; this is ${process.version} (${process.execPath}).\n` +
      'In a clone `npm ci` installs the right one, unless its scripts are switched off (--ignore-scripts): then run\n' +
      '  npm rebuild node\nand start by `npm start` or `npm run entrepot -- COMMAND`, which take that one.\n',
  )
  process.exitCode = 1
}
