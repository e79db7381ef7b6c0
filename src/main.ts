#!/usr/bin/env node
/** argv -> command -> exit code. */
import { run } from './cli/run.ts'

// `exit` rather than `exitCode`: once a command is done nothing that is still open may keep the process.
process.exit(await run(process.argv.slice(2)))
