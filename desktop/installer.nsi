; desktop/installer.py: makensis with VERSION, FOLDER (what is installed), LIST (what is removed again) and OUT
Unicode true
Target amd64-unicode
SetCompressor /SOLID lzma
SetDateSave off
!define KEY "Software\Microsoft\Windows\CurrentVersion\Uninstall\SpikingBrain"

Name "SpikingBrain ${VERSION}"
OutFile "${OUT}"
RequestExecutionLevel user ; for one user, no administrator
ManifestLongPathAware true
InstallDir "$LOCALAPPDATA\Programs\SpikingBrain"
InstallDirRegKey HKCU "${KEY}" "InstallLocation"
LicenseData "${FOLDER}/LICENSE.txt"

Page license
Page directory
Page instfiles
UninstPage uninstConfirm
UninstPage instfiles

Section
    SetOutPath "$INSTDIR"
    File /r "${FOLDER}/*"
    WriteUninstaller "$INSTDIR\uninstall.exe"
    CreateShortCut "$SMPROGRAMS\SpikingBrain.lnk" "$SYSDIR\cmd.exe" '/K type README.txt' ; a terminal there
    WriteRegStr HKCU "${KEY}" "DisplayName" "SpikingBrain"
    WriteRegStr HKCU "${KEY}" "DisplayVersion" "${VERSION}"
    WriteRegStr HKCU "${KEY}" "InstallLocation" "$INSTDIR"
    WriteRegStr HKCU "${KEY}" "UninstallString" '"$INSTDIR\uninstall.exe"'
    WriteRegDWORD HKCU "${KEY}" "NoModify" 1
    WriteRegDWORD HKCU "${KEY}" "NoRepair" 1
SectionEnd

Section Uninstall
    !include "${LIST}" ; file by file: the folder may hold others
    Delete "$INSTDIR\uninstall.exe"
    RMDir "$INSTDIR"
    Delete "$SMPROGRAMS\SpikingBrain.lnk"
    DeleteRegKey HKCU "${KEY}"
SectionEnd
