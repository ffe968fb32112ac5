// Runs a script of Argo CD as Argo CD does: the same interpreter, the same few libraries, and a second of time.
// usage: lua SCRIPT < RESOURCE (JSON); prints what the script returns, as JSON
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
)

func main() {
	result, err := run(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(result))
}

func run(script string) ([]byte, error) {
	var resource any
	if err := json.NewDecoder(os.Stdin).Decode(&resource); err != nil {
		return nil, fmt.Errorf("the resource: %w", err)
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	// Argo CD opens neither string nor math: a script that uses them fails there, and so it does here. Of os it offers the time.
	for name, open := range map[string]lua.LGFunction{lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	clock := state.NewTable()
	state.SetField(clock, "time", state.NewFunction(func(state *lua.LState) int {
		state.Push(lua.LNumber(time.Now().Unix()))
		return 1
	}))
	state.SetGlobal("os", clock)
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limit)
	state.SetGlobal("obj", luajson.DecodeValue(state, resource))
	if err := state.DoFile(script); err != nil {
		return nil, err
	}
	if state.Get(-1).Type() != lua.LTTable {
		return nil, fmt.Errorf("%s returns %s, and has to return a table", script, state.Get(-1).Type())
	}
	return luajson.Encode(state.Get(-1))
}
